#!/usr/bin/env bash
# One training or evaluation on several processes of this machine:
#   bash launch/distributed.sh 2 hyperudl.train --config=configs/maml.py \
#     --workdir=runs/maml
#   bash launch/distributed.sh 2 hyperudl.evaluate --workdir=runs/maml --once
# The first process prints. If one ends with an error, the others end too, and
# the exit code is the first that is not 0, in the order of the processes. With
# NVIDIA GPUs, process i gets GPU i. On several machines set the variables
# JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID yourself, or use
# launch/slurm.sh.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
count="$1"
shift
python="${PYTHON:-python}"
port="${PORT:-$((20000 + RANDOM % 20000))}"
export JAX_COORDINATOR_ADDRESS="127.0.0.1:$port" JAX_NUM_PROCESSES="$count"
gpus="$(nvidia-smi -L 2> /dev/null | wc -l || true)"
if ((gpus > 0 && gpus < count)); then
  echo "$count processes, but only $gpus GPUs: start at most $gpus" >&2
  exit 2
fi
numbers=()
for ((i = 0; i < count; i++)); do
  ((gpus == 0)) || export JAX_LOCAL_DEVICE_IDS=$i
  JAX_PROCESS_ID=$i "$python" -m "$@" &
  numbers+=($!)
done
# A signal to this script goes to all processes; `wait` then returns early.
trap 'kill -TERM "${numbers[@]}" 2> /dev/null || true' TERM INT
code=0
for number in "${numbers[@]}"; do
  while :; do
    ended=0
    wait "$number" || ended=$?
    kill -0 "$number" 2> /dev/null || break
  done
  ((code)) || code=$ended
done
exit "$code"
