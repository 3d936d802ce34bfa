# The engine of every recipe: stages, options, launching. Source it after setting defaults.
#
# A recipe names its options and their defaults in variables, lists them in `options`, sources this file (which reads
# the command line: `--stage 2 --stop-stage 4 --epochs 10` sets stage, stop_stage and epochs), then guards each step with
#   if runs 2 "what it does"; then ... fi
# and starts every program with `run` or `launch`, so that `--dry-run` prints the commands and runs nothing.
#
# Many GPUs or machines, by torchrun (environment variables):
#   NPROC         processes on this machine, one per GPU (default 1: no torchrun; `gpu` takes all GPUs)
#   NNODES        machines (default 1); start the same recipe on each of them
#   RDZV          host:port of the first machine, for the torchrun rendezvous (needed with NNODES > 1)
#   RDZV_ID       name of the job, the same on all machines (default: flexiast)
#   MAX_RESTARTS  how often torchrun restarts failed processes; they resume from the last checkpoint (default 0)
# egs/slurm.sh runs a recipe under Slurm.

set -euo pipefail

: "${stage:=0}" "${stop_stage:=100}" "${options:=}"
dry_run=

die() { echo "$(basename "$0"): error: $*" >&2; exit 2; }

# --some-option VALUE sets $some_option, provided the recipe declared it; --help is the header of the recipe.
while [ $# -gt 0 ]; do
  case "$1" in
    --help|-h) sed -n '2,/^[^#]/{s/^# \{0,1\}//p}' "$0"; exit 0 ;;
    --dry-run) dry_run=yes; shift ;;
    --*)
      _option=${1#--}; _option=${_option//-/_}
      [[ " stage stop_stage $options " == *" $_option "* ]] || die "unknown option $1; see --help"
      [ $# -ge 2 ] || die "option $1 needs a value"
      printf -v "$_option" '%s' "$2"; shift 2 ;;
    *) die "unexpected argument $1; see --help" ;;
  esac
done
for _option in stage stop_stage; do
  [[ ${!_option} =~ ^[0-9]+$ ]] || die "--${_option//_/-}: found ${!_option}, expected a number"
done
[ -n "$dry_run" ] || command -v flexiast >/dev/null ||
  die "the command flexiast is not on PATH; activate the environment (make .venv/installed)"

# one_of OPTION WORD...: die unless the option's value is one of the words.
one_of() {
  local name=$1; shift
  [[ " $* " == *" ${!name} "* ]] || die "--${name//_/-}: found ${!name}, expected one of $*"
}

# split NAME TEXT: sets the array NAME to the words of TEXT.
split() { read -r -d '' -a "$1" <<<"$2" || true; } # it fails at the end of the text

# runs N "title": whether stage N is to run; prints its title if so.
runs() {
  if [ "$stage" -le "$1" ] && [ "$1" -le "$stop_stage" ]; then
    if [ -n "$dry_run" ]; then echo "# stage $1: $2"; else echo "[$(date +%T)] stage $1: $2"; fi
    return 0
  fi
  return 1
}

# run COMMAND...: run it, or under --dry-run print it on one line, quoted for the shell.
run() {
  if [ -z "$dry_run" ]; then "$@"; return; fi
  local line
  printf -v line '%q ' "$@"
  echo "${line% }"
}

# launch COMMAND...: run flexiast COMMAND on NPROC processes on each of NNODES machines.
launch() {
  local nproc=${NPROC:-1} nnodes=${NNODES:-1}
  if [ "$nproc" = 1 ] && [ "$nnodes" = 1 ]; then
    run flexiast "$@"
    return
  fi
  local meeting=(--standalone)
  if [ "$nnodes" != 1 ]; then
    [ -n "${RDZV:-}" ] || die "NNODES is $nnodes, so RDZV is needed: host:port of the first machine"
    meeting=(--nnodes "$nnodes" --rdzv-backend c10d --rdzv-endpoint "$RDZV" --rdzv-id "${RDZV_ID:-flexiast}")
  fi
  # Without `--` torchrun would take options such as --log for abbreviations of its own.
  run torchrun --nproc-per-node "$nproc" "${meeting[@]}" --max-restarts "${MAX_RESTARTS:-0}" -m -- flexiast.cli "$@"
}

# in_background LOG COMMAND...: start a job. `join` waits for all jobs, shows their progress, and fails if one of them
# did.
jobs_started=()
in_background() {
  local log=$1; shift
  if [ -n "$dry_run" ]; then run "$@"; return; fi
  mkdir -p "$(dirname "$log")"
  echo "  in the background, log: $log"
  "$@" >"$log" 2>&1 &
  jobs_started+=("$!:$log")
}
join() {
  local job pid log
  for job in ${jobs_started[@]+"${jobs_started[@]}"}; do
    pid=${job%%:*} log=${job#*:}
    while kill -0 "$pid" 2>/dev/null; do
      sleep 1
      printf '\r\033[K%s' "$(tail -c 300 "$log" | tr '\r' '\n' | tail -n 1 | cut -c 1-100)"
    done
    printf '\n'
    wait "$pid" || { tail -n 3 "$log" | tr '\r' '\n' | tail -n 3 >&2; die "a job failed, its log is $log"; }
  done
  jobs_started=()
}
# A recipe that is stopped stops its jobs, which then save their state.
stop_jobs() {
  local job
  for job in ${jobs_started[@]+"${jobs_started[@]}"}; do kill -TERM "${job%%:*}" 2>/dev/null || true; done
}
trap stop_jobs EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
