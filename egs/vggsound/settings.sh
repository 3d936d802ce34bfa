# VGGSound: 309 classes, one per clip, trained with binary cross-entropy as published.
# Sources: FlexiAST (Feng et al., INTERSPEECH 2023; egs/vggsound and egs/supvs_flexiast/vggsd_supvs.sh of its repository).
published() {
  : "${init:=timm:vit_base_patch16_224.augreg_in21k_ft_in1k}"
  : "${frames:=1024}" "${mean:=-5.0767093}" "${std:=4.4533687}"
  : "${loss:=bce}" "${metric:=accuracy}" "${batch_size:=12}"
  : "${freq_mask:=48}" "${time_mask:=192}" "${mixup:=0}" "${noise:=0}" "${roll:=0}"
  : "${lr:=1e-5}" "${epochs:=20}" "${sampling:=balanced}"
  : "${step_from:=2}" "${step_every:=1}" "${step_factor:=0.5}" "${average_from:=0}"
}
