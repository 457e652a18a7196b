"""Configures MAML, FOMAML, ANIL, Meta-SGD and MAML++ (see `learners/maml.py`).

The first word of the variant is `maml` (the default), `fomaml`, `anil`,
`metasgd` or `mamlpp`:

  python -m hyperudl.train --config=configs/maml.py:omniglot,way=5,shot=1 \
    --workdir=runs/maml
  python -m hyperudl.train --config=configs/maml.py:mamlpp,omniglot,way=20 \
    --workdir=runs/mamlpp

Conv4 with 64 filters and 5 inner steps (metasgd: 1); for natural images with 32
filters (mamlpp: 48).
"""

from configs import common

METHODS = {
  'maml': {},
  'fomaml': {'first_order': True},
  'anil': {'scope': 'head'},
  'metasgd': {'rates': 'element', 'inner_steps': 1},
  'mamlpp': {'rates': 'leaf', 'multi_step': 5_000, 'step_norms': True},
}


def get_config(arg=None):
  method, _, rest = (arg or '').partition(',')
  if method not in METHODS:
    method, rest = 'maml', arg
  natural = (rest or '').split(',')[0] in common.NATURAL
  config = common.base('maml')
  config.steps = 10_000
  config.batch = 4 if natural else 8
  config.episode.query = 15 if natural else 5
  learner = config.learner
  width = (48 if method == 'mamlpp' else 32) if natural else 64
  learner.channels = (width,) * 4
  learner.inner_rate = 0.01 if natural else 0.1
  learner.update(METHODS[method])
  return common.apply_variant(config, rest)
