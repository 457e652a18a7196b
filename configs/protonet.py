"""Prototypical network, Conv4-64 (Snell et al. 2017, arXiv:1703.05175).

Published: Omniglot 98.8% 5-way 1-shot (60-way training, transductive batch
statistics). Ours, with the command: docs/results/first.md.

  python -m hyperudl.train --config=configs/protonet.py:omniglot,way=5,shot=1 \
    --workdir=runs/protonet
"""

from configs import common


def get_config(arg=None):
  config = common.base()
  config.steps = 4_000
  config.batch = 8
  config.checkpoint_steps = 500
  config.learner.name = 'protonet'
  config.learner.backbone = 'conv'
  config.learner.channels = (64, 64, 64, 64)
  config.learner.norm = 'batch'
  config.learner.distance = 'l2'
  config.learner.scale = 1.0
  config.learner.learn_scale = True
  config.learner.refine = 0
  return common.apply_variant(config, arg)
