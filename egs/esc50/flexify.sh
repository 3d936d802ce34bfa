#!/usr/bin/env bash
# ESC-50, five folds: make an AST of one patch size flexible.
#   egs/esc50/flexify.sh --data DIR [--from 8|16|32] [--method supervised|distill] [--OPTION VALUE ...]; see --help.
# Hyper-parameters as published: AST (Gong et al., 2021), egs/esc50; see settings.sh.
exec "$(dirname "$0")/../supvs_flexiast/flexify.sh" esc50 "$@"
