#!/usr/bin/env bash
# ESC-50, five folds: one AST per patch size, to compare a flexible one with.
#   egs/esc50/specialists.sh --data DIR [--from 8|16|32] [--sizes "8 16 32 48"] [--OPTION VALUE ...]; see --help.
# Hyper-parameters as published: AST (Gong et al., 2021), egs/esc50; see settings.sh.
exec "$(dirname "$0")/../supvs_flexiast/specialists.sh" esc50 "$@"
