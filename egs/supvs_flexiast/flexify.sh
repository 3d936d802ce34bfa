#!/usr/bin/env bash
# Flexification: make a trained AST of one patch size work at every patch size.
#
#   egs/supvs_flexiast/flexify.sh DATASET --data DIR [--from 8|16|32] [--teacher CKPT] [--method supervised|distill]
#                   [--axes both|time|freq] [--temperature X] [--label-weight X] [--exp DIR]
#                   [--stage N] [--stop-stage N] [--dry-run] [--OPTION VALUE ...]
#
# DATASET: audioset, vggsound, esc50, speechcommands, voxceleb or arabic_speech_commands; egs/DATASET/flexify.sh calls
# this.
# --from: the baseline to start from, that of egs/DATASET/runN.sh; --teacher: any other checkpoint. Its weights are
# the start, at base kernel 16 x 16; with --method distill it is also the frozen teacher, at its own patch size.
# --axes: which side of the patch varies; `time` is 16 x t, `freq` is f x 16. --label-weight: share of the labels in
# distillation. Stages: 1 manifests from --data, 2 training, 3 flexibility curves of teacher and student on the test
# split, 4 the average over folds. The same command resumes an interrupted run; --dry-run prints the full commands and
# runs nothing. Many GPUs: NPROC=4, see egs/common.sh. Options and sources of the settings: egs/recipe.sh,
# egs/DATASET/settings.sh. --extra "..." is passed to `flexiast train` unchanged.
set -euo pipefail
usage() { sed -n '2,/^set/{s/^# \{0,1\}//p}' "$0"; exit "$1"; }
[[ " $* " != *" --help "* ]] || usage 0
[[ -n "${1:-}" && "${1:-}" != -* ]] || usage 2
dataset=$1 options="from teacher method axes temperature label_weight name"
from=16 teacher= method=supervised axes=both temperature=1 label_weight=0 name=
shift
. "$(dirname "$0")/../recipe.sh"
one_of method supervised distill
one_of axes both time freq

# Patch sizes as flexiast writes them, freq x time.
split sizes "$patch_sizes"
measured=("${eval_words[@]}")
case $axes in
  time) sizes=("${sizes[@]/#/16x}") measured=("${measured[@]/#/16x}") ;;
  freq) sizes=("${sizes[@]/%/x16}") measured=("${measured[@]/%/x16}") ;;
esac
: "${name:=flexible_from${from}_${method}_$axes}"

require_baselines
if runs 1 "manifests"; then
  prepare_data
fi
for fold in ${folds:-all}; do
  out=$(of_fold "$fold" "$exp/$name") start=$(start_of "$fold")
  distill=()
  [ "$method" = supervised ] ||
    distill=(--distill.teacher "$start" --distill.temperature "$temperature" --distill.label-weight "$label_weight")
  if runs 2 "$method flexification, axes: $axes${folds:+, fold $fold held out}"; then
    set_splits "$fold"
    launch train --out "$out" "${splits[@]}" --model.init "$start" --model.patch-size 16 "${training[@]}" \
      --patches.sizes "${sizes[@]}" --patches.draw "$draw" ${rectangles:+--patches.rectangles yes} \
      ${dropout:+--patches.dropout "$dropout"} \
      --eval-patch-sizes "${measured[@]}" ${distill[@]+"${distill[@]}"}
  fi
  if runs 3 "flexibility curves${folds:+, fold $fold}"; then
    measure "$fold" "$out/flexibility" "$start" "$out" -- "${measured[@]}"
  fi
done
if [ -n "$folds" ] && runs 4 "average over the folds"; then
  run python "$egs/average.py" "$exp/$name"
fi
