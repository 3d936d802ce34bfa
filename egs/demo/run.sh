#!/usr/bin/env bash
# The whole idea on a laptop CPU: train an AST at patch 16, flexify it, and plot accuracy against patch size.
#
#   egs/demo/run.sh [--stage N] [--stop-stage N] [--data DIR] [--exp DIR] [--seed N] [--epochs X]
#                   [--control-epochs X] [--flex-epochs X] [--draw DRAW] [--specialists "8 24 32 48"]
#                   [--coverage pad|drop] [--label-weight X] [--mean X] [--std X] [--dry-run]
#
# Stages: 1 data, 2 fixed AST at patch 16, 3 control (trained further at patch 16; with --specialists also models trained
# further at these sizes, one each, which takes longer), 4 supervised flexification,
# 5 flexification by distillation (3, 4 and 5 from the same start; 3 and 4 with the same compute, 5 with the steps of 4),
# 6 measurement on the test split, 7 table and picture. Everything is written below --exp (default: egs/demo/exp).
# Flexible models are trained as `flexiast flexify` does it, at every height and width from 8 to 48. --draw nine: only at
# the nine sizes that are measured (egs/demo/RESULTS.md compares them).
# The same command resumes an interrupted run.
# --dry-run prints the full commands and runs nothing.
# --data DIR: use the real Speech Commands V2, or anything in its layout, instead of synthetic speech; its
# statistics are --mean -6.845978 --std 5.5654526 (AST).

here=$(dirname "${BASH_SOURCE[0]}")

stage=1
stop_stage=7
exp=$here/exp
data=
speakers="--train-speakers 300 --val-speakers 20 --test-speakers 60"
seed=0
epochs=2.5
control_epochs=3.5
flex_epochs=8.5  # a step costs 0.41 of the control's
size=micro
mean=-6.4063  # of the log-mel over the synthetic training split
std=3.6223
coverage=pad
label_weight=0.5  # share of the labels in distillation
patch_sizes="8 10 12 16 20 24 32 40 48"
weights="3 4 7 18 13 13 14 14 14"
draw=coarse-to-fine
specialists=
options="data exp speakers seed epochs control_epochs flex_epochs size mean std coverage label_weight patch_sizes weights draw"
options="$options specialists"

. "$here/../common.sh"

manifests=$exp/manifests
split speakers "$speakers"
split patch_sizes "$patch_sizes"
split weights "$weights"
split specialised "$specialists"
train=(flexiast train --data.train "$manifests/train.json" --data.val "$manifests/val.json"
  --data.labels "$manifests/labels.csv" --data.workers 0 --seed "$seed" --loss ce
  --optim.name adamw --optim.betas 0.9 0.98 --optim.weight-decay 0.01 --optim.schedule cosine --optim.clip-norm 0
  --augment.freq-mask 0 --augment.time-mask 0 --augment.noise 0 --augment.mixup 0 --patience 0)
fixed=(--data.batch-size 16 --optim.lr 1e-3 --optim.warmup-steps 100 --epochs "$epochs"
  --eval-every 1 --augment.roll 0 --model.pool cls --threads 0)
# Control, specialists and flexible models: the same start, the same compute, the same optimizer.
further=(--data.batch-size 16 --optim.lr 1e-3 --optim.warmup-steps 100 --augment.roll 4 --threads 1
  --model.init "$exp/fixed" --model.coverage "$coverage")
alone=(--epochs "$control_epochs" --eval-every 2)
split every "$(seq 8 48)"
flexible=(--patches.sizes "${every[@]}" --patches.rectangles yes --patches.draw "$draw" --patches.dropout 0.67
  --eval-patch-sizes "${patch_sizes[@]}" --epochs "$flex_epochs" --eval-every 4)
if [ "$draw" = nine ]; then
  flexible=(--patches.sizes "${patch_sizes[@]}" --patches.weights "${weights[@]}" --epochs "$flex_epochs" --eval-every 4)
fi

if runs 1 "data: spoken words and their manifests"; then
  if [ -z "$data" ]; then
    data=$exp/data
    run python "$here/speak.py" "$data" "${speakers[@]}"
  fi
  run python "$here/../speechcommands/prepare.py" "$data" "$manifests"
fi

if runs 2 "a fixed AST at patch 16"; then
  run "${train[@]}" --out "$exp/fixed" "${fixed[@]}" --model.size "$size" --model.patch-size 16 \
    --model.coverage "$coverage" --features.frames 96 --data.mean "$mean" --data.std "$std"
fi

if runs 3 "control: the fixed AST trained further at patch 16"; then
  in_background "$exp/control.log" "${train[@]}" --out "$exp/control" "${further[@]}" "${alone[@]}" --eval-patch-sizes 16
  for patch in ${specialised[@]+"${specialised[@]}"}; do
    in_background "$exp/patch$patch.log" "${train[@]}" --out "$exp/specialists/patch$patch" "${further[@]}" \
      "${alone[@]}" --patches.sizes "$patch" --eval-patch-sizes "$patch"
  done
fi

if runs 4 "supervised flexification, a random patch size at every step"; then
  in_background "$exp/supervised.log" "${train[@]}" --out "$exp/supervised" "${further[@]}" "${flexible[@]}"
fi

if runs 5 "flexification by distillation from the fixed AST"; then
  in_background "$exp/distilled.log" "${train[@]}" --out "$exp/distilled" "${further[@]}" "${flexible[@]}" \
    --distill.teacher "$exp/fixed" --distill.temperature 2 --distill.label-weight "$label_weight"
fi
join

if runs 6 "measurement of all models on the test split"; then
  run python "$here/../../measure_flexibility.py" "$exp/fixed" "$exp/control" "$exp/supervised" "$exp/distilled" \
    --data "$manifests/test.json" --labels "$manifests/labels.csv" --patch-sizes "${patch_sizes[@]}" \
    --batch-size 50 --workers 0 --out "$exp/flexibility" --overwrite
  for patch in ${specialised[@]+"${specialised[@]}"}; do
    run python "$here/../../measure_flexibility.py" "$exp/specialists/patch$patch" --data "$manifests/test.json" \
      --labels "$manifests/labels.csv" --patch-sizes "$patch" --batch-size 50 --workers 0 \
      --out "$exp/specialists/patch$patch/flexibility" --overwrite
  done
fi

if runs 7 "table and picture"; then
  run python "$here/report.py" "$exp"
fi
