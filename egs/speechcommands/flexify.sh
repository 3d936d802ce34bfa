#!/usr/bin/env bash
# Speech Commands V2: make an AST of one patch size flexible.
#   egs/speechcommands/flexify.sh --data DIR [--from 8|16|32] [--method supervised|distill] [--OPTION VALUE ...]; see --help.
# Hyper-parameters as published: AST (Gong et al., 2021), egs/speechcommands; see settings.sh.
exec "$(dirname "$0")/../supvs_flexiast/flexify.sh" speechcommands "$@"
