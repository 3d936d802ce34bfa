#!/usr/bin/env bash
# AudioSet: an AST at patch 16.   egs/audioset/run16.sh --data DIR [--OPTION VALUE ...]; --help lists stages and options.
# Hyper-parameters as published: AST (Gong et al., 2021) and FlexiAST (Feng et al., 2023), egs/audioset; see settings.sh.
exec "$(dirname "$0")/../baseline.sh" audioset 16 "$@"
