# Sourced by the launch scripts: makes .venv with hyperudl in it, once.
#
#   EXTRAS=test        install these extras too ('' = none)
#   PYTHON=python3.11  the Python (>= 3.11) that makes the environment
#   CPU_DEVICES=1      one device of the CPU, not one for each of its cores
set -euo pipefail
devices="--cpu_devices=${CPU_DEVICES:-0}"
cd "$(dirname "${BASH_SOURCE[0]}")/.."

make_environment() {
  local python="${PYTHON:-python3}" wanted stamp=.venv/installed
  "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "hyperudl needs Python >= 3.11; $python is $("$python" -V)." \
      "Set PYTHON=/path/to/python3.11" >&2
    exit 2
  }
  [ -x .venv/bin/python ] || "$python" -m venv .venv
  wanted="extras=${EXTRAS:-} $(cat setup.py constraints.txt | cksum)"
  if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
    echo "Installing hyperudl into .venv (about 1.2 GB, a minute) ..."
    .venv/bin/python -m pip install --quiet --disable-pip-version-check \
      --constraint constraints.txt --editable ".${EXTRAS:+[$EXTRAS]}"
    echo "$wanted" > "$stamp"
  fi
  PATH="$PWD/.venv/bin:$PATH"
  export PATH
}

# need_data NAME: ends before anything is trained if the set is not there.
need_data() {
  local folder="${DATA_DIR:-data_numpy_dir}"
  [ "$1" = glyphs ] || compgen -G "$folder/$1*" > /dev/null || {
    echo "no data set $1 in $folder: data_numpy_dir/README.md says how to" \
      "get one; DATA_DIR names another folder" >&2
    exit 2
  }
}

# run_across TARGET SPLIT --config=... FLAGS: `run_setting`, then the best
# checkpoint on the own test classes and on SPLIT of TARGET, with calibration and
# classes outside of the support. In $best: flags of the last evaluation.
run_across() {
  local run="${RUN:-runs/$(basename "$0" .sh)}"
  need_data "$1"
  RUN="$run" run_setting "${@:3}"
  best=(--workdir="$run" --once --step=best "$devices")
  python -m hyperudl.evaluate "${best[@]}" --tag=best
  best+=(--dataset="$1" --split="$2" --data_dir="${DATA_DIR:-data_numpy_dir}")
  python -m hyperudl.evaluate "${best[@]}"
  python -m hyperudl.evaluate "${best[@]}" --uncertainty
}

# run_setting --config=... FLAGS: trains with the evaluator as a second process
# and prints the table. The run lies in runs/<name of the script>, or in RUN.
# --config must be the first of all flags that begin like it.
run_setting() {
  local run
  run="${RUN:-runs/$(basename "$0" .sh)${REFERENCE:+-reference}}"
  make_environment
  python -m hyperudl.evaluate --workdir="$run" &
  trap 'kill %1 2>/dev/null || true' EXIT
  python -m hyperudl.train --workdir="$run" "$1" "$devices" \
    --config.data.dir="${DATA_DIR:-data_numpy_dir}" "${@:2}"
  wait
  python launch/table.py "$run"
}
