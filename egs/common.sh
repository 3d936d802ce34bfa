# The engine of every recipe: stages, options, logging, launching. Source it after setting defaults.
#
# A recipe sets its variables, sources this file (which reads the command line: `--stage 2 --stop-stage 4
# --epochs 10` sets stage, stop_stage and epochs, if the recipe has set them before), then guards each step with
#   if runs 2 "what it does"; then ... fi

set -euo pipefail

: "${stage:=0}" "${stop_stage:=100}"

die() { echo "$(basename "$0"): error: $*" >&2; exit 2; }

# --some-option VALUE sets $some_option, provided the recipe declared it; --help lists what it declared.
while [ $# -gt 0 ]; do
  case "$1" in
    --help|-h) sed -n '2,/^[^#]/{s/^# \{0,1\}//p}' "$0"; exit 0 ;;
    --*)
      name=${1#--}; name=${name//-/_}
      [ -n "${!name+declared}" ] || die "unknown option $1; see --help"
      [ $# -ge 2 ] || die "option $1 needs a value"
      printf -v "$name" '%s' "$2"; shift 2 ;;
    *) die "unexpected argument $1; see --help" ;;
  esac
done
for name in stage stop_stage; do
  [[ ${!name} =~ ^[0-9]+$ ]] || die "--${name//_/-}: found ${!name}, expected a number"
done
command -v flexiast >/dev/null || die "the command flexiast is not on PATH; activate the environment (make .venv/installed)"

# runs N "title": whether stage N is to run; says so if it is.
runs() {
  if [ "$stage" -le "$1" ] && [ "$1" -le "$stop_stage" ]; then
    echo "[$(date +%T)] stage $1: $2"
    return 0
  fi
  return 1
}

# in_background LOG COMMAND...: start a job of a stage. `join` waits for all of them, shows how far they are, and
# fails if one did.
jobs_started=()
in_background() {
  local log=$1; shift
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
      sleep 5
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
