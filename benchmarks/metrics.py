#!/usr/bin/env python3
"""Exact mean average precision and AUC of an AudioSet-sized evaluation, 20,000 clips and 527 classes.

All classes together against scikit-learn's average_precision_score and roc_auc_score class by class. `AudioSet`:
half a percent of positives; `dense`: a third, the worst case; `ties`: scores of 100 levels.

python benchmarks/metrics.py        writes benchmarks/results/metrics.json and prints the ratios
"""

from collections.abc import Sequence

import numpy as np
from harness import Report, arguments, run
from sklearn.metrics import average_precision_score, roc_auc_score

from flexiast.traintest.metrics import average_precision, classification_metrics, roc_auc


def scikit_learn(scores: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """AP and AUC (C,) each of scores and targets (n, C)."""
    pairs = list(zip(targets.T, scores.T, strict=True))
    return np.array([average_precision_score(*p) for p in pairs]), np.array([roc_auc_score(*p) for p in pairs])


def main(argv: Sequence[str] | None = None) -> None:
    options = arguments(__doc__, argv)
    report = Report("metrics", options, rounds=3, threads=1)
    clips, classes = (300, 5) if options.quick else (20_000, 527)
    rng = np.random.default_rng(0)
    for group, share, levels in (("AudioSet", 0.005, None), ("dense", 0.33, None), ("ties", 0.005, 100)):
        targets = rng.random((clips, classes)) < share
        targets[:2] = [[True], [False]]
        scores = (rng.random((clips, classes)) + 0.3 * targets).astype(np.float32)
        if levels:
            scores = np.round(scores * levels) / np.float32(levels)
        precision, area = scikit_learn(scores, targets)
        report.agree(f"{group}: AP", average_precision(scores, targets), precision, within=1e-12)
        report.agree(f"{group}: AUC", roc_auc(scores, targets), area, within=1e-12)
        contenders = {
            "scikit-learn": lambda s=scores, t=targets: scikit_learn(s, t),
            "flexiast": lambda s=scores, t=targets: classification_metrics(s, t),
        }
        report.race(f"{group}, {clips} clips x {classes} classes", contenders, against="scikit-learn")
    report.finish()


if __name__ == "__main__":
    run(main)
