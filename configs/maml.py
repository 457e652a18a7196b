"""Configures MAML, FOMAML, ANIL, Meta-SGD and MAML++ (see `learners/maml.py`).

The first word of the variant is `maml` (the default), `fomaml`, `fomaml10`,
`anil`, `metasgd`, `mamlpp` or `published`:

  python -m hyperudl.train --config=configs/maml.py:omniglot,way=5,shot=1 \
    --workdir=runs/maml
  python -m hyperudl.train --config=configs/maml.py:mamlpp,omniglot,way=20 \
    --workdir=runs/mamlpp

Conv4 with 64 filters and 5 inner steps of .1 (metasgd: one; fomaml10: ten of
.05); for natural images with 32 filters (mamlpp: 48) and steps of a tenth of
that size. The multi-step loss of mamlpp ends after a tenth of the outer steps.
Its parts can be left out one by one: `--config.learner.rates=fixed`,
`--config.learner.step_norms=False`, `--config.learner.multi_step=0`.

`published` is MAML++ as its authors' configurations run (arXiv:1810.09502,
where the initial inner rate is .1 for all data sets): 50,000 updates, a rate
that falls from 1e-3 to 1e-5, one query per class and 8 episodes an update for
characters; a constant rate, gradients limited to 10 and 2 episodes for natural
images. Their accuracies are those of an ensemble of the five best checkpoints
(`evaluate --once --step=best_ensemble`).

`init_from.net` names the run of a pre-trained backbone, of `protonet` for
instance: it replaces the initial values of all layers but the head.
"""

from configs import common

METHODS = {
  'maml': {},
  'fomaml': {'first_order': True},
  'fomaml10': {'first_order': True, 'inner_steps': 10},
  'anil': {'scope': 'head'},
  'metasgd': {'rates': 'element', 'inner_steps': 1},
  'mamlpp': {'rates': 'leaf', 'step_norms': True},
  'published': {'rates': 'leaf', 'step_norms': True},
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
  plusplus = method in ('mamlpp', 'published')
  width = (48 if plusplus else 32) if natural else 64
  learner.channels = (width,) * 4
  learner.inner_rate = 0.01 if natural else 0.1
  if method == 'fomaml10':
    learner.inner_rate /= 2
  learner.update(METHODS[method])
  if plusplus:
    learner.multi_step = common.of_steps(config, 1, 10)
  if method == 'published':
    _set_published(config, natural)
  config.init_from.net = ''
  return common.apply_variant(config, rest)


def _set_published(config, natural):
  """Set the outer optimizer, the schedules and the episodes of MAML++."""
  config.steps = 50_000
  config.learner.inner_rate = 0.1
  config.batch = 2 if natural else 8
  config.episode.query = 15 if natural else 1
  config.optimizer.clip = 0.0
  config.optimizer.end_factor = 0.01
  if natural:
    config.learner.multi_step = common.of_steps(config, 15, 100)
    config.optimizer.schedule = 'constant'
    config.optimizer.clip, config.optimizer.clip_by = 10.0, 'value'
