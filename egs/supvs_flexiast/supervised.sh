#!/usr/bin/env bash
# Flexification, supervised.   egs/supvs_flexiast/supervised.sh DATASET --data DIR [--from 8|16|32] [--axes both|time|freq] ...
# Stages, options and sources: flexify.sh --help.
[ $# -gt 0 ] || exec "$(dirname "$0")/flexify.sh"
dataset=$1; shift
exec "$(dirname "$0")/flexify.sh" "$dataset" --method supervised "$@"
