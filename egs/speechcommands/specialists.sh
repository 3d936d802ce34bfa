#!/usr/bin/env bash
# Speech Commands V2: one AST per patch size, to compare a flexible one with.
#   egs/speechcommands/specialists.sh --data DIR [--from 8|16|32] [--sizes "8 16 32 48"] [--OPTION VALUE ...]; see --help.
# Hyper-parameters as published: AST (Gong et al., 2021), egs/speechcommands; see settings.sh.
exec "$(dirname "$0")/../supvs_flexiast/specialists.sh" speechcommands "$@"
