"""HVAE on glyphvqa: a VAE of the weights that HNET decodes.

  python -m hyperudl.train --config=configs/hvae.py --workdir=runs/hvae \
    --config.init_from.hypernet=runs/hypernet

After Nava et al. 2023, arXiv:2210.08942. Its latent is the space of guidance
with `learner.space=hvae`.
"""

from configs import common
from configs import contrastive
from configs import hypernet


def get_config(arg=None):
  config = common.base()
  contrastive.add_language(config)
  config.batch = 32
  config.steps = 3_000
  config.strategy = 'vmap'
  config.episode.shot = 2
  config.optimizer.learning_rate = 1e-3
  config.eval.episodes = 108
  config.learner.name = 'hvae'
  config.learner.hvae_latent = 32
  config.learner.hvae_hidden = (128, 128)
  config.learner.beta = 1.0
  config.learner.hvae_steps = 50
  config.learner.hvae_rate = 0.03
  hypernet.add_upstream(config)
  config.init_from.hypernet = ''
  return contrastive.apply_language(config, arg)
