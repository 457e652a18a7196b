"""Configures HyperMAML (arXiv:2205.15745) as in its published runs.

  python -m hyperudl.train --config=configs/hypermaml.py:omniglot,way=5,shot=1 \
    --workdir=runs/hypermaml

The hypernetwork has width 512 for characters and 256 for natural images. In the
first tenth of the outer steps the head is adapted by gradients (J = 5), in the
next quarter by a mixture, then only by the hypernetwork. With more than one
shot the embeddings of a class are averaged.
"""

from configs import common


def get_config(arg=None, learner='hypermaml'):
  words = (arg or '').split(',')
  natural = words[0] in common.NATURAL
  config = common.base(learner)
  config.steps = 10_000
  config.batch = 8
  config.episode.query = 15 if natural else 5
  config.eval.select_after = 3_500
  learner = config.learner
  learner.hidden = 256 if natural else 512
  learner.aggregation = 'concat' if 'shot=1' in words or not arg else 'mean'
  learner.warmup_steps = 1_000
  learner.switch_steps = 2_500
  learner.inner_rate = 0.01 if natural else 0.1
  return common.apply_variant(config, arg)
