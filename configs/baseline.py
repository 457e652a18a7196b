"""Configures baselines without meta-training (see `learners/baseline/`).

Training only finds the mean of the training features, so it takes seconds, and
one run serves all kinds. On a file of features (docs/guide.md) or on pixels:

  python -m hyperudl.train --config=configs/baseline.py:omniglot,way=5,shot=1 \
    --workdir=runs/baseline
  python -m hyperudl.evaluate --workdir=runs/baseline --once \
    --config.learner.kind=tim --config.episode.unlabelled=15 --tag=tim

Our results: docs/results/baselines.md.
"""

from configs import common


def get_config(arg=None):
  config = common.base('baseline')
  # A running mean of episodes, the longer the later.
  config.optimizer.name, config.optimizer.learning_rate = 'sgd', 0.5
  config.optimizer.clip = 0.0
  config.steps = 200
  config.checkpoint_steps = 200
  config = common.apply_variant(config, arg)
  config.data.augment = 'none'  # the mean is that of images as in tests
  return config
