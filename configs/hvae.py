"""Configures HVAE on glyphvqa: a VAE of the weights that HNET decodes.

  python -m hyperudl.train --config=configs/hvae.py --workdir=runs/hvae \
    --config.init_from.hypernet=runs/hypernet

After Nava et al. 2023, arXiv:2210.08942. `hyperclip` and `hyperldm` work in its
latent space if `learner.space=hvae`.
"""

from configs import contrastive


def get_config(arg=None):
  config = contrastive.base('hvae')
  config.batch = 32
  config.steps = 3_000
  config.strategy = 'vmap'
  config.episode.shot = 2
  config.init_from = {'contrastive': '', 'hypernet': ''}
  return contrastive.apply_variant(config, arg)
