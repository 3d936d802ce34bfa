# AudioSet: 527 classes, several per clip. --set full (unbalanced and balanced, default) or balanced.
# Sources: AST (Gong et al., INTERSPEECH 2021; egs/audioset/run.sh of its repository), FlexiAST (Feng et al., INTERSPEECH
# 2023; egs/audioset of its repository). Its AudioSet models start from the distilled DeiT at 384.
options="$options set"
set=full
published() {
  one_of set full balanced
  prepare="--set $set $prepare"
  : "${init:=timm:deit_base_distilled_patch16_384.fb_in1k}"
  : "${frames:=1024}" "${mean:=-4.2677393}" "${std:=4.5689974}"
  : "${loss:=bce}" "${metric:=mAP}" "${batch_size:=12}"
  : "${freq_mask:=48}" "${time_mask:=192}" "${mixup:=0.5}" "${noise:=0}" "${roll:=0}"
  if [ "$set" = full ]; then
    : "${lr:=1e-5}" "${epochs:=5}" "${sampling:=balanced}"
    : "${step_from:=2}" "${step_every:=1}" "${step_factor:=0.5}" "${average_from:=1}"
  else
    : "${lr:=5e-5}" "${epochs:=25}" "${sampling:=shuffle}"
    : "${step_from:=10}" "${step_every:=5}" "${step_factor:=0.5}" "${average_from:=6}"
  fi
}
