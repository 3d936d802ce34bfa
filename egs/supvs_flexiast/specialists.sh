#!/usr/bin/env bash
# Specialists: one AST per patch size, from the same start and with the same epochs as the flexible model. What
# flexibility costs is the distance between the two.
#
#   egs/supvs_flexiast/specialists.sh DATASET --data DIR [--from 8|16|32] [--teacher CKPT] [--sizes "8 16 32 48"]
#                   [--exp DIR] [--stage N] [--stop-stage N] [--dry-run] [--OPTION VALUE ...]
#
# DATASET: audioset, vggsound, esc50, speechcommands, voxceleb or arabic_speech_commands; egs/DATASET/specialists.sh calls
# this. --from, --teacher: the start, as of egs/DATASET/flexify.sh; --sizes: the patch sizes, such as "8 16x32".
# Stages: 1 manifests from --data, 2 a training for each size, 3 the test accuracy of each at its own size, 4 table and
# picture, beside the flexible models of egs/DATASET/flexify.sh in the same --exp. Results: EXP/specialists. The same
# command resumes an interrupted run; --dry-run prints the full commands and runs nothing. Many GPUs: NPROC=4, see
# egs/common.sh. Options and sources of the settings: egs/recipe.sh, egs/DATASET/settings.sh.
set -euo pipefail
usage() { sed -n '2,/^set/{s/^# \{0,1\}//p}' "$0"; exit "$1"; }
[[ " $* " != *" --help "* ]] || usage 0
[[ -n "${1:-}" && "${1:-}" != -* ]] || usage 2
dataset=$1 options="from teacher sizes"
from=16 teacher= sizes="8 16 32 48"
shift
. "$(dirname "$0")/../recipe.sh"
split specialised "$sizes"

require_baselines
if runs 1 "manifests"; then
  prepare_data
fi
for fold in ${folds:-all}; do
  for size in "${specialised[@]}"; do
    out=$(of_fold "$fold" "$exp/specialists/patch$size")
    if runs 2 "a specialist of patch $size${folds:+, fold $fold held out}"; then
      set_splits "$fold"
      launch train --out "$out" "${splits[@]}" --model.init "$(start_of "$fold")" --model.patch-size 16 \
        "${training[@]}" --patches.sizes "$size" --eval-patch-sizes "$size"
    fi
    if runs 3 "its test accuracy at patch $size${folds:+, fold $fold}"; then
      measure "$fold" "$out/flexibility" "$out" -- "$size"
    fi
  done
done
if runs 4 "table and picture"; then
  run python "$egs/specialists.py" "$exp"
fi
