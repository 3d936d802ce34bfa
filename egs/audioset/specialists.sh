#!/usr/bin/env bash
# AudioSet: one AST per patch size, to compare a flexible one with.
#   egs/audioset/specialists.sh --data DIR [--from 8|16|32] [--sizes "8 16 32 48"] [--OPTION VALUE ...]; see --help.
# Hyper-parameters as published: AST (Gong et al., 2021) and FlexiAST (Feng et al., 2023), egs/audioset; see settings.sh.
exec "$(dirname "$0")/../supvs_flexiast/specialists.sh" audioset "$@"
