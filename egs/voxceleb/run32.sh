#!/usr/bin/env bash
# VoxCeleb1 identification: an AST at patch 32.   egs/voxceleb/run32.sh --data DIR [--OPTION VALUE ...]; --help lists stages and options.
# Hyper-parameters as published: FlexiAST (Feng et al., 2023), egs/voxceleb; see settings.sh.
exec "$(dirname "$0")/../baseline.sh" voxceleb 32 "$@"
