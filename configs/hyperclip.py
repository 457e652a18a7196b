"""Configures HyperCLIP on glyphvqa: guides latents by a question's gradient.

  python -m hyperudl.train --config=configs/hyperclip.py --workdir=runs/clip \
    --config.init_from.hypernet=runs/hypernet
  python -m hyperudl.evaluate --workdir=runs/clip --once --tag=single \
    --config.episode.tasks=0

After Nava et al. 2023, arXiv:2210.08942. Training contrasts the tasks of an
episode; with tasks=0 each episode of an evaluation is a single task.
"""

from configs import contrastive


def get_config(arg=None):
  config = contrastive.base('hyperclip')
  config.batch = 2
  config.steps = 1_500
  config.episode.shot = 2
  config.episode.tasks = 32
  config.init_from = {'contrastive': '', 'hypernet': '', 'hvae': ''}
  return contrastive.apply_variant(config, arg)
