"""UDL, the main job: emitted CNN, label-free inner steps, test-time shift.

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


def add_writer(learner):
  """How the CNN of an episode is written."""
  learner.channels = (32, 32, 64)
  learner.width = 64
  learner.layers = 2
  learner.heads = 4
  learner.trunk = (16, 32, 32)
  learner.share_trunk = False
  learner.condition = 'posterior'
  learner.emit = 'all'
  learner.allocation = 'output'
  learner.strength = 0.1
  learner.norm = 'domain'
  learner.vae_latent = 24
  learner.vae_hidden = (256, 128)


def get_config(arg=None):
  phase, _, rest = (arg or '').partition(',')
  if phase not in ('base', 'inner', 'joint'):
    phase, rest = 'joint', arg
  config = common.base()
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
  config.learner.name = 'udl'
  config.learner.phase = phase
  config.learner.setting = 'classes'
  add_writer(config.learner)
  config.learner.adapt = 'film'
  config.learner.inner_steps = 3
  config.learner.elbo = 'features'
  config.learner.ssl = 'geometry'
  config.learner.critic = 'predictions'
  config.learner.gate = 'predictions+elbo'
  config.learner.cluster = 3
  config.learner.inner_rate = 0.3
  config.learner.inner_rates = 'learned'
  config.learner.inner_weight = 0.1
  config.learner.inner_norm = 'unit'
  config.learner.meta_grad = 'full'
  config.learner.direction = 'learned'
  config.learner.start = 'identity'
  config.learner.multi_step = 0
  config.learner.unadapted_weight = 0.25
  config.learner.auxiliary_weight = 0.1
  config.learner.single = False
  config.learner.ensemble = 0
  config.learner.finetune_steps = 0
  config.learner.finetune_rate = 1e-3
  config.init_from.vae = ''
  config.init_from.base = ''
  return common.apply_variant(config, rest)
