#!/usr/bin/env python3
"""Measure checkpoints at many patch sizes: `python measure_flexibility.py CKPT [CKPT ...] --data ... --out DIR`."""

import sys

from flexiast.cli import measure_main

if __name__ == "__main__":
    sys.exit(measure_main())
