"""HyperLDM on glyphvqa: networks sampled from a question alone.

  python -m hyperudl.train --config=configs/hyperldm.py --workdir=runs/ldm \
    --config.init_from.hypernet=runs/hypernet
  python -m hyperudl.evaluate --workdir=runs/ldm --once --tag=free \
    --config.learner.gamma=0

After Nava et al. 2023, arXiv:2210.08942; classifier-free guidance of a
diffusion over the latents of HNET (or of HVAE, `learner.space=hvae`).
"""

from configs import common
from configs import contrastive
from configs import hypernet


def add_diffusion(learner):
  """Denoiser and sampler."""
  learner.schedule = 'cosine'
  learner.timesteps = 100
  learner.denoiser = (256, 256)
  learner.drop_rate = 0.2
  learner.gamma = 1.0
  learner.sampler_steps = 50
  learner.eta = 1.0
  learner.clip = 4.0
  learner.samples = 1
  learner.ema = 0.999


def get_config(arg=None):
  config = common.base()
  contrastive.add_language(config)
  config.batch = 64
  config.steps = 6_000
  config.strategy = 'vmap'
  config.episode.shot = 2
  config.optimizer.learning_rate = 2e-3
  config.eval.episodes = 108
  config.learner.name = 'hyperldm'
  config.learner.space = 'hnet'
  config.learner.hvae_latent = 32
  config.learner.hvae_hidden = (128, 128)
  add_diffusion(config.learner)
  config.learner.few_shot_gamma = 0.0
  config.learner.finetune_steps = 0
  hypernet.add_upstream(config)
  config.init_from.hypernet = ''
  config.init_from.hvae = ''
  return contrastive.apply_language(config, arg)
