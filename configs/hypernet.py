"""Configures HNET on glyphvqa: decodes a latent into an adapter's weights.

  python -m hyperudl.train --config=configs/hypernet.py \
    --workdir=runs/hypernet --config.init_from.contrastive=runs/contrastive

After Nava et al. 2023, arXiv:2210.08942 (`learner.kind`: autodecoder, maml,
multitask, conditional, weights, film). launch/language.sh runs all stages.
"""

from configs import contrastive


def get_config(arg=None):
  config = contrastive.base('hypernet')
  config.steps = 1_500
  config.strategy = 'vmap'
  config.optimizer.learning_rate = 3e-3
  config.init_from = {'contrastive': ''}
  return contrastive.apply_variant(config, arg)
