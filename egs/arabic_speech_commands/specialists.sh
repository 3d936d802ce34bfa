#!/usr/bin/env bash
# Arabic Speech Commands: one AST per patch size, to compare a flexible one with.
#   egs/arabic_speech_commands/specialists.sh --data DIR [--from 8|16|32] [--sizes "8 16 32 48"] [--OPTION VALUE ...]; see --help.
# With settings that flexiast fits to the data; see settings.sh.
exec "$(dirname "$0")/../supvs_flexiast/specialists.sh" arabic_speech_commands "$@"
