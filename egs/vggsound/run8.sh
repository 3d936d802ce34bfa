#!/usr/bin/env bash
# VGGSound: an AST at patch 8.   egs/vggsound/run8.sh --data DIR [--OPTION VALUE ...]; --help lists stages and options.
# Hyper-parameters as published: FlexiAST (Feng et al., 2023), egs/vggsound; see settings.sh.
exec "$(dirname "$0")/../baseline.sh" vggsound 8 "$@"
