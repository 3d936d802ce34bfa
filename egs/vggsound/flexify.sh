#!/usr/bin/env bash
# VGGSound: make an AST of one patch size flexible.
#   egs/vggsound/flexify.sh --data DIR [--from 8|16|32] [--method supervised|distill] [--OPTION VALUE ...]; see --help.
# Hyper-parameters as published: FlexiAST (Feng et al., 2023), egs/vggsound; see settings.sh.
exec "$(dirname "$0")/../supvs_flexiast/flexify.sh" vggsound "$@"
