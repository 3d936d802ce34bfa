#!/usr/bin/env bash
# AudioSet: make an AST of one patch size flexible.
#   egs/audioset/flexify.sh --data DIR [--from 8|16|32] [--method supervised|distill] [--OPTION VALUE ...]; see --help.
# Hyper-parameters as published: AST (Gong et al., 2021) and FlexiAST (Feng et al., 2023), egs/audioset; see settings.sh.
exec "$(dirname "$0")/../supvs_flexiast/flexify.sh" audioset "$@"
