# What baselines and flexification share: a data set's published settings, presets, data preparation, measurement.
# Source it with $dataset set; it reads the command line (egs/common.sh) and leaves the array `training`: the options of
# `flexiast train` that follow from the settings.
#
# Sources of what all data sets share: FlexiAST (Feng et al., INTERSPEECH 2023) and AST (Gong et al., INTERSPEECH 2021):
# Adam with betas 0.95 and 0.999, weight decay 5e-7, mixed precision (bfloat16 where it is fast); 1,000 warm-up steps where
# the data set's own settings name no other number.

egs=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
audioset_ast=$egs/../pretrained_models/ast_audioset_16_16.pth
# nproc honours OMP_NUM_THREADS and OMP_THREAD_LIMIT; unset them to count the cores available.
cores=$(env -u OMP_NUM_THREADS -u OMP_THREAD_LIMIT nproc 2>/dev/null || getconf _NPROCESSORS_ONLN)

# Empty means: as published for the data set.
options="$options data exp preset init size coverage frames mean std loss metric batch_size freq_mask time_mask mixup
  noise roll lr epochs sampling step_from step_every step_factor average_from warmup_steps patch_sizes eval_sizes seed
  workers token_budget prepare extra"
data= exp=$egs/$dataset/exp preset= init= size= coverage=pad frames= mean= std= loss= metric= batch_size=
freq_mask= time_mask= mixup= noise= roll= lr= epochs= sampling= step_from= step_every= step_factor= average_from=
warmup_steps= patch_sizes= eval_sizes= seed=0 workers=$((cores < 8 ? cores : 8)) token_budget=0 prepare= extra=
folds= downloadable= val_split=yes

[ -f "$egs/$dataset/settings.sh" ] || { echo "error: no recipe for data set $dataset" >&2; exit 2; }
. "$egs/$dataset/settings.sh"
options=$(echo $options) # on one line
. "$egs/common.sh"
if [ -z "$preset" ]; then
  if [ "$init" = scratch ]; then preset=auto; else preset=published; fi
fi
one_of preset published modern auto
one_of coverage pad drop
# `auto`: flexiast fits every setting that is not given to the data (src/traintest/defaults.py).
if [ "$preset" = auto ]; then
  for _option in frames mean std batch_size freq_mask time_mask mixup noise roll lr epochs warmup_steps; do
    [ -n "${!_option}" ] || printf -v "$_option" auto
  done
  : "${average_from:=0}"
fi
# What `flexiast flexify` does by itself, see egs/ablations/RESULTS.md; the papers draw eleven sizes alike.
draw=uniform rectangles= dropout=
if [ "$preset" != published ] && [ -z "$patch_sizes" ]; then
  patch_sizes=$(seq -s ' ' 8 48) draw=coarse-to-fine rectangles=yes dropout=0.67
fi
published
: "${warmup_steps:=1000}" "${patch_sizes:=8 10 12 15 16 20 24 30 32 40 48}" "${eval_sizes:=8 10 12 16 20 24 30 32 40 48}"

# `published`: the schedule of the papers. It halves AudioSet's rate after every epoch from the second, so that twenty
# epochs are about three at the full rate. `modern`: AdamW, cosine to zero, clipped gradients, from the same peak.
case $preset in
  published)
    optim=(--optim.name adam --optim.betas 0.95 0.999 --optim.weight-decay 5e-7 --optim.clip-norm 0
      --optim.schedule step --optim.step-from "$step_from" --optim.step-every "$step_every"
      --optim.step-factor "$step_factor" --eval-every 1 --patience 0 --augment.no-crop) ;;
  modern)
    optim=(--optim.name adamw --optim.betas 0.9 0.98 --optim.weight-decay 0.05 --optim.schedule cosine
      --optim.clip-norm 1 --eval-every 1 --patience 0) ;;
  auto) optim=() ;;
esac
[ "$mean" != auto ] || std=auto
split prepare_words "$prepare"
split extra_words "$extra"
split eval_words "$eval_sizes"
training=(--loss "$loss" --metric "$metric" --epochs "$epochs" --seed "$seed" --average-from "$average_from"
  --data.batch-size "$batch_size" --data.sampling "$sampling" --data.mean "$mean" --data.std "$std"
  --data.workers "$workers" --features.frames "$frames" --model.coverage "$coverage" --token-budget "$token_budget"
  --optim.lr "$lr" --optim.warmup-steps "$warmup_steps" ${optim[@]+"${optim[@]}"}
  --augment.freq-mask "$freq_mask" --augment.time-mask "$time_mask" --augment.mixup "$mixup"
  --augment.noise "$noise" --augment.roll "$roll" ${extra_words[@]+"${extra_words[@]}"})

manifests=$exp/manifests

# prepare_data: build manifests from --data, or from a download in $FLEXIAST_DATA.
prepare_data() {
  local from
  if [ -n "$data" ]; then
    from=("$data")
  elif [ -n "$downloadable" ] && [ -n "${FLEXIAST_DATA:-}" ]; then
    from=(--download)
  else
    die "--data is needed: the folder that holds $dataset (see egs/$dataset/prepare.py --help)"
  fi
  run python "$egs/$dataset/prepare.py" "${from[@]}" "$manifests" ${prepare_words[@]+"${prepare_words[@]}"}
}

# require_start SOURCE REMEDY: die, before anything is written, unless the checkpoint that training starts from exists.
# The stages that do not train need none, nor does a dry run.
require_start() {
  if [ -n "$dry_run" ] || [ "$stage" -gt 2 ] || [ "$stop_stage" -lt 2 ]; then return; fi
  [ -e "$1" ] || die "$1: no such checkpoint to start from; $2"
}

# start_of FOLD: the checkpoint that a fold starts from: of --teacher, or the baseline of --from. A baseline has one for
# each fold; a checkpoint given may have.
start_of() {
  if [ -z "$teacher" ]; then
    of_fold "$1" "$exp/patch$from"
  elif [ -d "$teacher/fold$1" ]; then
    of_fold "$1" "$teacher"
  else
    echo "$teacher"
  fi
}

# require_baselines: die unless what start_of names exists for every fold.
require_baselines() {
  local fold start
  for fold in ${folds:-all}; do
    start=$(start_of "$fold")
    [ -n "$teacher" ] && is_remote "$start" || require_start "$start" "train it first with egs/$dataset/run$from.sh, or \
give another checkpoint as --teacher (released ones: python pretrained_models/fetch.py)"
  done
}

# is_remote SOURCE: whether it names a model of timm or of the Hub (owner/name) rather than a file.
is_remote() { [[ "$1" == timm:* || "$1" =~ ^[A-Za-z0-9_-]+/[A-Za-z0-9._-]+$ && ! "$1" =~ \.(pth|pt|bin|safetensors)$ ]]; }

# of_fold FOLD PATH: where a fold has its own copy of something; data sets without folds have the one fold `all`.
of_fold() { if [ "$1" = all ]; then echo "$2"; else echo "$2/fold$1"; fi; }

# set_splits FOLD: sets `splits`, the options of `flexiast train` that name the fold's manifests.
set_splits() {
  local where; where=$(of_fold "$1" "$manifests")
  splits=(--data.train "$where/train.json" --data.labels "$where/labels.csv")
  if has_val "$where"; then splits+=(--data.val "$where/val.json"); else splits+=(--data.val 0); fi
}

# has_val DIR: whether the manifests in DIR have a validation split; before they are written, whether they will have one.
has_val() {
  if [ -f "$1/train.json" ]; then [ -f "$1/val.json" ]; return; fi
  case " $prepare " in
    *" --val-share 0 "*) return 1 ;;
    *" --val-share "*) return 0 ;;
    *) [ -n "$val_split" ] ;;
  esac
}

# measure FOLD OUT CHECKPOINT... -- SIZE...: the flexibility curves on the test split; a repeated stage replaces them.
measure() {
  local where out=$2 models=(); where=$(of_fold "$1" "$manifests")
  shift 2
  while [ "$1" != -- ]; do models+=("$1"); shift; done
  shift
  launch measure "${models[@]}" --data "$where/test.json" --labels "$where/labels.csv" --patch-sizes "$@" \
    --workers "$workers" --out "$out" --overwrite
}
