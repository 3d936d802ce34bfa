#!/usr/bin/env bash
# Any recipe under Slurm, on all GPUs of one or more machines:
#   sbatch --nodes 2 --gpus-per-node 4 egs/slurm.sh egs/audioset/run16.sh --data /data/audioset
# Slurm sends TERM two minutes before the time is up: the run finishes its step and saves, the job puts itself back into
# the queue, and goes on from there.
#SBATCH --job-name flexiast
#SBATCH --ntasks-per-node 1
#SBATCH --time 24:00:00
#SBATCH --signal B:TERM@120
#SBATCH --requeue
#SBATCH --output %x-%j.log
set -euo pipefail
export NNODES=$SLURM_NNODES NPROC=gpu RDZV_ID=$SLURM_JOB_ID
RDZV=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1):29500
export RDZV

time_is_up=
trap 'time_is_up=yes; kill -TERM "$job"' TERM
srun "$@" &
job=$!
code=0
wait "$job" || code=$?
if [ -n "$time_is_up" ]; then
  wait "$job" || true
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
