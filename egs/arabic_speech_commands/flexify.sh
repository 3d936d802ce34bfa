#!/usr/bin/env bash
# Arabic Speech Commands: make an AST of one patch size flexible.
#   egs/arabic_speech_commands/flexify.sh --data DIR [--from 8|16|32] [--OPTION VALUE ...]; see --help.
# With settings that flexiast fits to the data; see settings.sh.
exec "$(dirname "$0")/../supvs_flexiast/flexify.sh" arabic_speech_commands "$@"
