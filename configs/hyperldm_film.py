"""HyperLDM over the film of `udl`'s CNN, on episodes with a shift.

  python -m hyperudl.train --config=configs/udl.py:base --workdir=runs/base \
    --config.init_from.vae=runs/vae
  python -m hyperudl.train --config=configs/hyperldm_film.py \
    --workdir=runs/film --config.init_from.base=runs/base

The guidance of Nava et al. 2023 (arXiv:2210.08942) by the posterior of the
samples in place of a question. Expected: docs/results/guidance.md.
"""

from configs import common
from configs import hyperldm
from configs import udl


def get_config(arg=None):
  config = common.base()
  config.batch = 12
  config.steps = 2_000
  config.episode.unlabelled = 5
  config.episode.proportions = 'dirichlet'
  config.data.shift = 'phase2'
  config.optimizer.learning_rate = 2e-3
  config.learner.name = 'hyperldm_film'
  config.learner.target_steps = 10
  config.learner.target_rate = 0.3
  hyperldm.add_diffusion(config.learner)
  udl.add_writer(config.learner)
  config.init_from.base = ''
  return common.apply_variant(config, arg)
