"""Configures HyperShot (Sendera et al. 2023, arXiv:2203.11378).

  python -m hyperudl.train --config=configs/hypershot.py:omniglot,way=5,shot=1 \
    --workdir=runs/hypershot
  python -m hyperudl.evaluate --workdir=runs/hypershot --once --tag=finetune10 \
    --config.learner.finetune_steps=10

Sizes are those of the authors' commands: for characters a hypernetwork of width
512 with one common layer, which generates a hidden layer of 128; for natural
images 128, none and 64. Episodes and optimizer are ours.
"""

from configs import common


def get_config(arg=None):
  natural = (arg or '').split(',')[0] in common.NATURAL
  config = common.base('hypershot')
  config.steps = 10_000
  config.batch = 8
  config.episode.query = 15 if natural else 5
  config.init_from.net = ''  # the run of a pre-trained backbone
  if natural:
    config.learner.update(hidden=128, common_layers=0, target=(64,))
  return common.apply_variant(config, arg)
