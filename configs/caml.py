"""Configures CAML: a transformer that reads a query together with the support.

Fifty et al. 2024, arXiv:2310.10971; sizes are ours (see `learners/caml.py`).

  python -m hyperudl.train --config=configs/caml.py:omniglot,way=5,shot=1 \
    --workdir=runs/caml
  python -m hyperudl.evaluate --workdir=runs/caml --once
"""

from configs import common


def get_config(arg=None):
  config = common.base('caml')
  config.steps = 4_000
  config.batch = 8
  config.optimizer.learning_rate = 1e-3
  config.init_from.net = ''  # the run of a pre-trained backbone
  return common.apply_variant(config, arg)
