# Speech Commands V2: 35 words, one per clip, trained with binary cross-entropy as published.
# Sources: AST (Gong et al., INTERSPEECH 2021; egs/speechcommands/run_sc.sh of its repository): noise is uniform up to 0.1,
# the roll up to 10 frames, and there is no warm-up.
published() {
  downloadable=yes
  : "${init:=$audioset_ast}"
  : "${frames:=128}" "${mean:=-6.845978}" "${std:=5.5654526}"
  : "${loss:=bce}" "${metric:=accuracy}" "${batch_size:=128}"
  : "${freq_mask:=48}" "${time_mask:=48}" "${mixup:=0.6}" "${noise:=0.1}" "${roll:=10}"
  : "${lr:=2.5e-4}" "${epochs:=30}" "${sampling:=shuffle}"
  : "${step_from:=5}" "${step_every:=1}" "${step_factor:=0.85}" "${average_from:=0}" "${warmup_steps:=0}"
}
