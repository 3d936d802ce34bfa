#!/usr/bin/env bash
# VoxCeleb1 identification: one AST per patch size, to compare a flexible one with.
#   egs/voxceleb/specialists.sh --data DIR [--from 8|16|32] [--sizes "8 16 32 48"] [--OPTION VALUE ...]; see --help.
# Hyper-parameters as published: FlexiAST (Feng et al., 2023), egs/voxceleb; see settings.sh.
exec "$(dirname "$0")/../supvs_flexiast/specialists.sh" voxceleb --sizes "16x8 16 16x32 16x48" "$@"
