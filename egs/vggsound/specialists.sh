#!/usr/bin/env bash
# VGGSound: one AST per patch size, to compare a flexible one with.
#   egs/vggsound/specialists.sh --data DIR [--from 8|16|32] [--sizes "8 16 32 48"] [--OPTION VALUE ...]; see --help.
# Hyper-parameters as published: FlexiAST (Feng et al., 2023), egs/vggsound; see settings.sh.
exec "$(dirname "$0")/../supvs_flexiast/specialists.sh" vggsound "$@"
