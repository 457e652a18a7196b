"""Configures BayesHMAML (arXiv:2210.02796): HyperMAML with random heads.

  python -m hyperudl.train --workdir=runs/bayeshmaml \
    --config=configs/bayeshmaml.py:omniglot,way=5,shot=1
  python -m hyperudl.evaluate --workdir=runs/bayeshmaml --once --tag=samples \
    --config.learner.test_samples=100

Published runs predict with the mean of the posterior (`test_samples=0`).
"""

from configs import common
from configs import hypermaml


def get_config(arg=None):
  config = hypermaml.get_config(arg, 'bayeshmaml')
  words = (arg or '').split(',')
  if words[0] in common.NATURAL:
    config.learner.kl_stop = 1e-4 if 'shot=1' in words else 1e-5
  config.learner.kl_steps = config.steps
  return config
