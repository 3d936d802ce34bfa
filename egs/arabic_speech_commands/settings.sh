# Arabic Speech Commands (Ghandoura et al., Engineering Applications of Artificial Intelligence, 2021): 40 words, one per
# clip, official split by speaker (18 train, 6 validate, 6 test).
# No AST schedule is published for it, so `published` uses that of Speech Commands (AST, egs/speechcommands/run_sc.sh) with
# cross-entropy; the default is preset `auto` from scratch, which flexiast fits to the data (src/traintest/defaults.py).
: "${init:=scratch}"
published() {
  downloadable=yes
  : "${frames:=96}" "${mean:=auto}"
  : "${loss:=ce}" "${metric:=accuracy}" "${batch_size:=128}"
  : "${freq_mask:=48}" "${time_mask:=48}" "${mixup:=0.6}" "${noise:=0.1}" "${roll:=10}"
  : "${lr:=2.5e-4}" "${epochs:=30}" "${sampling:=shuffle}"
  : "${step_from:=5}" "${step_every:=1}" "${step_factor:=0.85}" "${average_from:=0}" "${warmup_steps:=0}"
}
