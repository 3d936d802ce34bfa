#!/usr/bin/env bash
# Arabic Speech Commands: an AST at patch 32.   egs/arabic_speech_commands/run32.sh --data DIR [--OPTION VALUE ...]; --help lists
# stages and options. From scratch, with settings that flexiast fits to the data; see settings.sh.
exec "$(dirname "$0")/../baseline.sh" arabic_speech_commands 32 "$@"
