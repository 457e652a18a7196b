"""BayesHMAML (arXiv:2210.02796): HyperMAML with a distribution of heads.

  python -m hyperudl.train --workdir=runs/bayeshmaml \
    --config=configs/bayeshmaml.py:omniglot,way=5,shot=1
  python -m hyperudl.evaluate --workdir=runs/bayeshmaml --once --tag=samples \
    --config.learner.test_samples=100

Published runs answer with the mean of the posterior (`test_samples=0`).
"""

from configs import common
from configs import hypermaml


def get_config(arg=None):
  config = hypermaml.get_config(arg).unlock()
  words = (arg or '').split(',')
  natural = words[0] in common.NATURAL
  learner = config.learner
  learner.name = 'bayeshmaml'
  del learner['finetune_steps']
  del learner['finetune_rate']
  learner.samples = 5
  learner.test_samples = 0
  learner.average = 'logits'
  learner.kl_start = 1e-24
  shots = 1e-4 if 'shot=1' in words else 1e-5
  learner.kl_stop = shots if natural else 1e-3
  learner.kl_steps = config.steps
  return config.lock()
