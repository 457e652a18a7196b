"""HNET on glyphvqa: a latent vector for the weights of an adapter.

  python -m hyperudl.train --config=configs/hypernet.py \
    --workdir=runs/hypernet --config.init_from.contrastive=runs/contrastive

After Nava et al. 2023, arXiv:2210.08942 (`learner.kind`: autodecoder, maml,
multitask, conditional, weights, film). launch/language.sh runs all stages.
"""

from configs import common
from configs import contrastive


def add_hypernet(learner):
  """Hyperparameters of HNET, which the learners above it repeat."""
  learner.target = 'adapter'
  learner.adapter = 32
  learner.channels = (16, 32, 32)
  learner.scale = 20.0
  learner.latent = 48
  learner.decoder = (128, 128)


def add_inner(learner):
  """Inner steps of HNET on a support."""
  learner.kind = 'autodecoder'
  learner.inner_steps = 10
  learner.inner_rate = 0.03
  learner.inner_optimizer = 'adam'
  learner.meta_grad = 'first_order'
  learner.penalty = 1e-3


def add_upstream(config):
  """What learners above HNET have to know of it and of the encoder."""
  add_hypernet(config.learner)
  add_inner(config.learner)
  contrastive.add_towers(config.learner)
  config.learner.inner_width = config.learner.inner
  del config.learner.inner
  config.init_from.contrastive = ''


def get_config(arg=None):
  config = common.base()
  contrastive.add_language(config)
  config.batch = 16
  config.steps = 1_500
  config.strategy = 'vmap'
  config.optimizer.learning_rate = 3e-3
  config.eval.episodes = 108
  config.learner.name = 'hypernet'
  add_upstream(config)
  return contrastive.apply_language(config, arg)
