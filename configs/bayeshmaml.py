"""Configures BayesHMAML (arXiv:2210.02796): HyperMAML with random heads.

  python -m hyperudl.train --workdir=runs/bayeshmaml \
    --config=configs/bayeshmaml.py:omniglot,way=5,shot=1
  python -m hyperudl.evaluate --workdir=runs/bayeshmaml --once --tag=samples \
    --config.learner.test_samples=100

The weight of the KL grows until the last outer step. Published runs predict
with the mean of the posterior (`test_samples=0`). With `published` as the first
word of the variant, the rest is as in the authors' commands too: that of
`hypermaml.py`, the KL in the loss of the warm-up's gradient steps, and 1e-2 as
the learning rate for 1-shot CUB.
"""

from configs import common
from configs import hypermaml


def get_config(arg=None):
  config = hypermaml.get_config(arg, 'bayeshmaml')
  words = (arg or '').split(',')
  published = words[0] == 'published'
  dataset = words[published] if len(words) > published else ''
  one_shot = 'shot=1' in words
  if dataset in common.NATURAL:
    config.learner.kl_stop = 1e-4 if one_shot else 1e-5
  if published:
    config.learner.kl_inner = True
    if dataset == 'cub' and one_shot:
      config.optimizer.learning_rate = 1e-2
  config.learner.kl_steps = common.of_steps(config, 1, 1)
  return config
