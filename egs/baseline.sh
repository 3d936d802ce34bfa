#!/usr/bin/env bash
# Train a standard AST at one patch size: the baseline, and the start of flexification.
#
#   egs/baseline.sh DATASET PATCH --data DIR [--init SOURCE|scratch] [--exp DIR] [--preset published|modern|auto]
#                   [--stage N] [--stop-stage N] [--dry-run] [--OPTION VALUE ...]
#
# DATASET: audioset, vggsound, esc50, speechcommands, voxceleb or arabic_speech_commands; egs/DATASET/run8.sh, run16.sh and
# run32.sh call this.
# Stages: 1 manifests from --data, 2 training (of each fold, where there are folds), 3 the flexibility curve on the
# test split, 4 the average over folds. Results: egs/DATASET/exp/patchPATCH. The same command resumes an interrupted run;
# --dry-run prints the full commands and runs nothing.
# --init: an ImageNet ViT or DeiT (timm:NAME), an AudioSet AST, or any other checkpoint; its kernel and positions are
# resized to the patch size. Each published setting is an option (--lr, --epochs, --batch-size, --frames, ...): see
# egs/recipe.sh and egs/DATASET/settings.sh. --extra "..." is passed to `flexiast train` unchanged, --prepare "..." to
# prepare.py. ESC-50 and Speech Commands are fetched to $FLEXIAST_DATA if there is no --data. Many GPUs: NPROC=4, see
# egs/common.sh.
set -euo pipefail
usage() { sed -n '2,/^set/{s/^# \{0,1\}//p}' "$0"; exit "$1"; }
[[ " $* " != *" --help "* ]] || usage 0
[[ "${1:-}" != -* && "${2:-}" =~ ^[0-9]+$ ]] || usage 2
dataset=$1 patch_size=$2 options=
shift 2
. "$(dirname "$0")/recipe.sh"

if [ "$init" = scratch ]; then
  if [ "$preset" != auto ]; then : "${size:=base}"; fi
  start=(${size:+--model.size "$size"} --model.patch-size "$patch_size")
else
  is_remote "$init" || require_start "$init" \
    "fetch it with: python pretrained_models/fetch.py $(basename "$init" .pth), or see --init"
  start=(--model.init "$init" --model.patch-size "$patch_size")
fi

if runs 1 "manifests"; then
  prepare_data
fi
for fold in ${folds:-all}; do
  out=$(of_fold "$fold" "$exp/patch$patch_size")
  if runs 2 "an AST at patch $patch_size${folds:+, fold $fold held out}"; then
    set_splits "$fold"
    launch train --out "$out" "${splits[@]}" "${start[@]}" "${training[@]}"
  fi
  if runs 3 "its flexibility curve${folds:+, fold $fold}"; then
    measure "$fold" "$out/flexibility" "$out" -- "${eval_words[@]}"
  fi
done
if [ -n "$folds" ] && runs 4 "average over the folds"; then
  run python "$egs/average.py" "$exp/patch$patch_size"
fi
