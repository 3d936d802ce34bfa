#!/usr/bin/env bash
# ESC-50, five folds: an AST at patch 32.   egs/esc50/run32.sh --data DIR [--OPTION VALUE ...]; --help lists stages and options.
# Hyper-parameters as published: AST (Gong et al., 2021), egs/esc50; see settings.sh.
exec "$(dirname "$0")/../baseline.sh" esc50 32 "$@"
