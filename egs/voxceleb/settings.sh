# VoxCeleb1, speaker identification: 1,251 classes, one per clip; patch size 15 is not trained at.
# Sources: FlexiAST (Feng et al., INTERSPEECH 2023; egs/voxceleb/vox_sup_from16.sh of its repository).
published() {
  : "${init:=$audioset_ast}"
  : "${frames:=1024}" "${mean:=-3.7614744}" "${std:=4.2011642}"
  : "${loss:=ce}" "${metric:=accuracy}" "${batch_size:=12}"
  : "${freq_mask:=48}" "${time_mask:=192}" "${mixup:=0}" "${noise:=0}" "${roll:=0}"
  : "${lr:=1e-5}" "${epochs:=20}" "${sampling:=balanced}"
  : "${step_from:=2}" "${step_every:=1}" "${step_factor:=0.5}" "${average_from:=0}"
  : "${patch_sizes:=8 10 12 16 20 24 30 32 40 48}"
}
