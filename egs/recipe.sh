# What baselines and flexification share: a data set's published settings, presets, data preparation, measurement.
# Source it with $dataset set; it reads the command line (egs/common.sh) and leaves the array `training`: the options of
# `flexiast train` that follow from the settings.
#
# Sources of what all data sets share: FlexiAST (Feng et al., INTERSPEECH 2023) and AST (Gong et al., INTERSPEECH 2021):
# Adam with betas 0.95 and 0.999, weight decay 5e-7, 1,000 warm-up steps, mixed precision (bfloat16 where it is fast).

egs=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
audioset_ast=$egs/../pretrained_models/ast_audioset_16_16.pth

# Empty means: as published for the data set.
options="$options data exp preset init size coverage frames mean std loss metric batch_size freq_mask time_mask mixup
  noise roll lr epochs sampling step_from step_every step_factor average_from warmup_steps patch_sizes eval_sizes seed
  workers token_budget prepare extra"
data= exp=$egs/$dataset/exp preset=published init= size= coverage=pad frames= mean= std= loss= metric= batch_size=
freq_mask= time_mask= mixup= noise= roll= lr= epochs= sampling= step_from= step_every= step_factor= average_from=
warmup_steps=1000 patch_sizes= eval_sizes= seed=0 workers=8 token_budget=0 prepare= extra= folds= downloadable=

[ -f "$egs/$dataset/settings.sh" ] || { echo "error: no recipe for data set $dataset" >&2; exit 2; }
. "$egs/$dataset/settings.sh"
options=$(echo $options) # on one line
. "$egs/common.sh"
one_of preset published modern
one_of coverage pad drop
published
: "${patch_sizes:=8 10 12 15 16 20 24 30 32 40 48}" "${eval_sizes:=8 10 12 16 20 24 30 32 40 48}"

# `published`: the schedule of the papers. It halves AudioSet's rate after every epoch from the second, so that twenty
# epochs are about three at the full rate. `modern`: AdamW, cosine to zero, clipped gradients, from the same peak.
if [ "$preset" = published ]; then
  optim="--optim.name adam --optim.betas 0.95 0.999 --optim.weight-decay 5e-7 --optim.schedule step
    --optim.step-from $step_from --optim.step-every $step_every --optim.step-factor $step_factor"
else
  optim="--optim.name adamw --optim.betas 0.9 0.98 --optim.weight-decay 0.05 --optim.schedule cosine
    --optim.clip-norm 1"
fi
statistics="--data.mean $mean --data.std $std"
[ "$mean" != auto ] || statistics="--data.mean auto"
training=(--loss "$loss" --metric "$metric" --epochs "$epochs" --seed "$seed" --average-from "$average_from"
  --data.batch-size "$batch_size" --data.sampling "$sampling" $statistics
  --data.workers "$workers" --features.frames "$frames" --model.coverage "$coverage" --token-budget "$token_budget"
  --optim.lr "$lr" --optim.warmup-steps "$warmup_steps" $optim
  --augment.freq-mask "$freq_mask" --augment.time-mask "$time_mask" --augment.mixup "$mixup"
  --augment.noise "$noise" --augment.roll "$roll" $extra)

manifests=$exp/manifests

# prepare_data: manifests from the data set as it lies in --data, or as it is fetched to $FLEXIAST_DATA.
prepare_data() {
  if [ -n "$data" ]; then
    python "$egs/$dataset/prepare.py" "$data" "$manifests" $prepare
  elif [ -n "$downloadable" ] && [ -n "${FLEXIAST_DATA:-}" ]; then
    python "$egs/$dataset/prepare.py" --download "$manifests" $prepare
  else
    die "--data is needed: the folder that holds $dataset (see egs/$dataset/prepare.py --help)"
  fi
}

# of_fold FOLD PATH: where a fold has its own copy of something; data sets without folds have the one fold `all`.
of_fold() { if [ "$1" = all ]; then echo "$2"; else echo "$2/fold$1"; fi; }

# splits FOLD: the options of `flexiast train` that name its manifests.
splits() {
  local where; where=$(of_fold "$1" "$manifests")
  echo "--data.train $where/train.json --data.labels $where/labels.csv"
  if [ -f "$where/val.json" ]; then echo "--data.val $where/val.json"; fi
}

# measure FOLD OUT "SIZES" CHECKPOINT...: the flexibility curves on the test split.
measure() {
  local where out=$2 sizes=$3; where=$(of_fold "$1" "$manifests")
  shift 3
  launch measure "$@" --data "$where/test.json" --labels "$where/labels.csv" --patch-sizes $sizes \
    --workers "$workers" --out "$out"
}
