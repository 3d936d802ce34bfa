#!/usr/bin/env bash
# VoxCeleb1 identification: make an AST of one patch size flexible along time, 16 x t (the published recipe; --axes both for both).
#   egs/voxceleb/flexify.sh --data DIR [--from 8|16|32] [--method supervised|distill] [--OPTION VALUE ...]; see --help.
# Hyper-parameters as published: FlexiAST (Feng et al., 2023), egs/voxceleb; see settings.sh.
exec "$(dirname "$0")/../supvs_flexiast/flexify.sh" voxceleb --axes time "$@"
