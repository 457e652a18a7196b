#!/usr/bin/env bash
# Downloads Omniglot (16 MB) and converts it: data_numpy_dir/omniglot.npz.
#
#   bash launch/data/omniglot.sh
#   python -m hyperudl.train --config=configs/protonet.py:omniglot --workdir=...
#
# An interrupted download starts again; the zip files are kept in
# data_numpy_dir/.downloads/omniglot and verified by their SHA-256. To use a
# mirror, set OMNIGLOT_URL to the address of the folder that has
# images_background.zip and images_evaluation.zip. DATA_DIR is the folder for
# the data set. Further flags: `python -m hyperudl.data.convert --help`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

url="${OMNIGLOT_URL:-https://github.com/brendenlake/omniglot/raw/master/python}"
out="${DATA_DIR:-data_numpy_dir}"
python="${PYTHON:-}"
if [[ -z "$python" ]]; then
  python=python3
  if [[ -x .venv/bin/python ]]; then python=.venv/bin/python; fi
fi

exec "$python" -m hyperudl.data.convert --kind=omniglot --name=omniglot \
  --source="$out/.downloads/omniglot" --download="$url" --out="$out" \
  --overwrite "$@"
