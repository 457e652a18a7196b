"""Configures HyperLDM on glyphvqa: samples networks given only a question.

  python -m hyperudl.train --config=configs/hyperldm.py --workdir=runs/ldm \
    --config.init_from.hypernet=runs/hypernet
  python -m hyperudl.evaluate --workdir=runs/ldm --once --tag=free \
    --config.learner.gamma=0

After Nava et al. 2023, arXiv:2210.08942: diffusion with classifier-free
guidance over the latents of HNET (or of HVAE, if `learner.space=hvae`).
"""

from configs import contrastive


def get_config(arg=None):
  config = contrastive.base('hyperldm')
  config.batch = 64
  config.steps = 6_000
  config.strategy = 'vmap'
  config.episode.shot = 2
  config.optimizer.learning_rate = 2e-3
  config.init_from = {'contrastive': '', 'hypernet': '', 'hvae': ''}
  return contrastive.apply_variant(config, arg)
