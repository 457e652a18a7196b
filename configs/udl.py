"""UDL: a generated CNN, an unsupervised inner loop, and shift at test time.

One config for the three runs that make the full system (`launch/` chains
them): a `vae` (configs/vae.py), then `learner.phase=base` and
`learner.phase=inner`. Without upstreams it trains everything jointly:

  python -m hyperudl.train --config=configs/udl.py --workdir=runs/udl
  python -m hyperudl.train --config=configs/udl.py:base --workdir=runs/base \
    --config.init_from.vae=runs/vae
  python -m hyperudl.train --config=configs/udl.py:inner --workdir=runs/inner \
    --config.init_from.base=runs/base

Queries and unlabelled images of an episode share one random shift and random
class proportions; the support is clean. Phase 'inner' also sees shift
families that phase 'base' never met, or nothing would be left to learn.
Expected accuracy with commands: docs/results/first.md and udl.md. With
`learner.setting=clusters` no label is used at all; give it many images a class,
for instance `unlabelled=12,query=7`.
"""

from configs import common


def get_config(arg=None):
  phase, _, rest = (arg or '').partition(',')
  if phase not in ('base', 'inner', 'joint'):
    phase, rest = 'joint', arg
  config = common.base('udl')
  config.batch = 12
  config.steps = 4_000
  config.episode.unlabelled = 5
  config.episode.proportions = 'dirichlet'
  config.data.shift = 'training' if phase == 'base' else 'phase2'
  config.optimizer.learning_rate = 1.5e-3
  if phase == 'inner':
    config.batch = 6
    config.steps = 800
    config.checkpoint_steps = 200
    config.log_steps = 50
    config.optimizer.learning_rate = 2e-2
    config.optimizer.clip = 1.0
  config.learner.phase = phase
  config.init_from.vae = ''
  config.init_from.base = ''
  return common.apply_variant(config, rest)
