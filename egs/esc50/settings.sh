# ESC-50: 50 classes, one per clip, five folds; --folds "1" trains and tests on one of them.
# Sources: AST (Gong et al., INTERSPEECH 2021; egs/esc50/run_esc.sh of its repository). No warm-up, as
# in AST's own script: an epoch is 34 steps, all 25 are 850. No validation split, as published: see prepare.py --val-share.
options="$options folds"
folds="1 2 3 4 5" val_split=
published() {
  downloadable=yes
  : "${init:=$audioset_ast}"
  : "${frames:=512}" "${mean:=-6.6268077}" "${std:=5.358466}"
  : "${loss:=ce}" "${metric:=accuracy}" "${batch_size:=48}"
  : "${freq_mask:=24}" "${time_mask:=96}" "${mixup:=0}" "${noise:=0}" "${roll:=0}"
  : "${lr:=1e-5}" "${epochs:=25}" "${sampling:=shuffle}"
  : "${step_from:=5}" "${step_every:=1}" "${step_factor:=0.85}" "${average_from:=0}" "${warmup_steps:=0}"
}
