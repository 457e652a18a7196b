# Functions for the launch scripts, which source this file: installs hyperudl
# into .venv, once, and trains a learner in a setting. Variables that it reads:
#
#   EXTRAS=test        extras to install ('' = none)
#   PYTHON=python3.11  the Python (>= 3.11) that makes the environment
#   CPU_DEVICES=1      use the CPU as one device, not one for each of its cores
#   DATASET=NAME       another data set; DATA_DIR=DIR: its folder
#   RUN=DIR            the folder of the run
set -euo pipefail
devices="--cpu_devices=${CPU_DEVICES:-0}"
data_dir="${DATA_DIR:-data_numpy_dir}"
cd "$(dirname "${BASH_SOURCE[0]}")/.."

make_environment() {
  local python="${PYTHON:-python3}" extras="${EXTRAS-experiments}"
  local wanted stamp=.venv/installed
  "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "hyperudl needs Python >= 3.11; $python is $("$python" -V)." \
      "Set PYTHON=/path/to/python3.11" >&2
    exit 2
  }
  [ -x .venv/bin/python ] || "$python" -m venv .venv
  wanted="extras=$extras $(cat setup.py constraints.txt | cksum)"
  if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
    echo "Installing hyperudl into .venv (about 1.3 GB, a minute) ..."
    .venv/bin/python -m pip install --quiet --disable-pip-version-check \
      --constraint constraints.txt --editable ".${extras:+[$extras]}"
    echo "$wanted" > "$stamp"
  fi
  PATH="$PWD/.venv/bin:$PATH"
  export PATH
}

# config_of LEARNER: sets $config to the learner's config, without the data set.
# Exits with code 2 for a learner that is not in $learners, which a script may
# set; by default all those listed here.
config_of() {
  local all='protonet hallucination maml fomaml anil metasgd mamlpp hypermaml
    bayeshmaml hypershot caml hypertransformer hypertransformer_reference'
  all="$(echo ${learners:-$all})"
  [[ -n "$1" && " $all " == *" $1 "* ]] || {
    echo "$(basename "$0"): learner '$1' does not suit; choose one of: $all" >&2
    exit 2
  }
  case "$1" in
    fomaml | anil | metasgd | mamlpp) config="configs/maml.py:$1," ;;
    # The published training: 4,000,000 updates by SGD.
    *_reference) config="configs/${1%_reference}.py:reference," ;;
    *) config="configs/$1.py:" ;;
  esac
}

# train_setting DATASET WAY SHOT LEARNER FLAGS: trains, with the evaluator as a
# second process. Sets $run to the folder of the run; FLAGS go to the training.
train_setting() {
  local name="$1" variant
  config_of "${4-}"
  variant="${DATASET:-$1},way=$2,shot=$3"
  run="${RUN:-runs/${name}_$2way_$3shot_$4}"
  make_environment
  python -m hyperudl.evaluate --workdir="$run" &
  trap 'kill %1 2>/dev/null || true' EXIT
  python -m hyperudl.train --workdir="$run" --config="$config$variant" \
    "$devices" --config.data.dir="$data_dir" "${@:5}"
  wait
}

# run_setting DATASET WAY SHOT LEARNER FLAGS: `train_setting`, then prints the
# table of results.
run_setting() {
  train_setting "$@"
  python -m experiments.summary "$run"
}

# run_across DATASET TARGET SPLIT WAY SHOT LEARNER FLAGS: `train_setting`, then
# evaluates the best checkpoint on the test classes of DATASET and on SPLIT of
# TARGET, with calibration and uncertainty on classes outside of the support.
run_across() {
  local source="$1" target="$2" split="$3" best
  config_of "${6-}"
  need_data "$target"
  RUN="${RUN:-runs/${source}_to_${target}_$4way_$5shot_$6}"
  train_setting "$source" "${@:4}"
  best=(--workdir="$run" --once --step=best "$devices")
  python -m hyperudl.evaluate "${best[@]}" --tag=best
  best+=(--dataset="$target" --split="$split" --data_dir="$data_dir")
  python -m hyperudl.evaluate "${best[@]}"
  python -m hyperudl.evaluate "${best[@]}" --uncertainty
  if [ "$6" = bayeshmaml ]; then
    python -m hyperudl.evaluate "${best[@]}" --uncertainty --tag=samples \
      --config.learner.test_samples=100 --config.learner.average=probabilities
  fi
  python -m experiments.summary "$run"
}

# need_data NAME: exits with code 2 if the data set is not there.
need_data() {
  [ "$1" = glyphs ] || compgen -G "$data_dir/$1*" > /dev/null || {
    echo "no data set $1 in $data_dir: data_numpy_dir/README.md says how to" \
      "get one; DATA_DIR names another folder" >&2
    exit 2
  }
}
