#!/usr/bin/env bash
# Speech Commands V2: an AST at patch 16.   egs/speechcommands/run16.sh --data DIR [--OPTION VALUE ...]; --help lists stages and options.
# Hyper-parameters as published: AST (Gong et al., 2021), egs/speechcommands; see settings.sh.
exec "$(dirname "$0")/../baseline.sh" speechcommands 16 "$@"
