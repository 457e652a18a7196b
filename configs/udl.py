"""Configures UDL: a generated CNN with an unsupervised inner loop, under shift.

The full system is the result of three runs (`launch/` chains them): a `vae`
(configs/vae.py), then this config with `base`, then with `inner`. By default it
trains everything jointly in one run:

  python -m hyperudl.train --config=configs/udl.py --workdir=runs/udl
  python -m hyperudl.train --config=configs/udl.py:base --workdir=runs/base \
    --config.init_from.vae=runs/vae
  python -m hyperudl.train --config=configs/udl.py:inner --workdir=runs/inner \
    --config.init_from.base=runs/base

Queries and unlabelled images of an episode share one random shift and random
class proportions; labelled images are clean. Phase 'inner' also trains on shift
families that phase 'base' has not seen; otherwise adaptation would have little
to gain. Expected accuracy, with commands: docs/results/first.md and udl.md.
With `learner.setting=clusters` no label is used at all; it needs many images
per class, for instance `unlabelled=12,query=7`.
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
  # Infers the shift of the unlabelled images, see `learners/udl/shift.py`.
  config.learner.adapt = 'shift'
  config.learner.elbo = 'shift'
  config.learner.ssl = 'none'
  config.learner.critic = 'none'
  config.learner.blend = True
  if phase != 'base':
    config.learner.inner_steps = 8
    config.learner.inner_rate = 0.9
  config.init_from.vae = ''
  config.init_from.base = ''
  return common.apply_variant(config, rest)
