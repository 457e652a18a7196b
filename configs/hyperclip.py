"""HyperCLIP on glyphvqa: networks led to a question by gradient steps.

  python -m hyperudl.train --config=configs/hyperclip.py --workdir=runs/clip \
    --config.init_from.hypernet=runs/hypernet
  python -m hyperudl.evaluate --workdir=runs/clip --once --tag=single \
    --config.episode.tasks=0

After Nava et al. 2023, arXiv:2210.08942. Training contrasts the tasks of an
episode; with tasks=0 an evaluation asks each task alone, once.
"""

from configs import common
from configs import contrastive
from configs import hypernet


def get_config(arg=None):
  config = common.base()
  contrastive.add_language(config)
  config.batch = 2
  config.steps = 1_500
  config.episode.shot = 2
  config.episode.tasks = 32
  config.eval.episodes = 108
  config.learner.name = 'hyperclip'
  config.learner.space = 'hnet'
  config.learner.hvae_latent = 32
  config.learner.hvae_hidden = (128, 128)
  config.learner.encoder = (128, 128)
  config.learner.contrast = 20.0
  config.learner.noise = 0.1
  config.learner.guidance_steps = 50
  config.learner.guidance_rate = 0.03
  config.learner.guidance_penalty = 0.0
  config.learner.guidance_schedule = 'constant'
  config.learner.langevin = 0.0
  hypernet.add_upstream(config)
  config.init_from.hypernet = ''
  config.init_from.hvae = ''
  return contrastive.apply_language(config, arg)
