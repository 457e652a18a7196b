"""Configures HyperMAML (Przewiezlikowski et al. 2022, arXiv:2205.15745).

  python -m hyperudl.train --config=configs/hypermaml.py:omniglot,way=5,shot=1 \
    --workdir=runs/hypermaml

In the first tenth of the outer steps the head is adapted by gradients (J = 5),
in the next quarter by a mixture, then only by the hypernetwork; only
checkpoints from then on are selected. These are fractions of `steps`, however
many there are. The hypernetwork has width 512 for characters and 256 for
natural images. With more than one shot the embeddings of a class are averaged.

With `published` as the first word of the variant the schedule, rates and sizes
are those of the authors' commands: a warm-up of 2.4% (natural images 2.5%), a
rate that falls to .3 of itself where the warm-up and the mixture end, no
clipping, and for characters J = 1, 32 episodes an update and no rotations. The
authors add up the losses of the episodes of an update, which Adam does not see.

  python -m hyperudl.train --workdir=runs/hypermaml_published \
    --config=configs/hypermaml.py:published,omniglot,way=5,shot=1
"""

from configs import common

RATE_FACTOR = 0.3  # at each milestone


def get_config(arg=None, learner='hypermaml'):
  words = (arg or '').split(',')
  published = words[0] == 'published'
  words = words[1:] if published else words
  natural = words[0] in common.NATURAL
  config = common.base(learner)
  config.steps = 10_000
  config.batch = 8
  config.episode.query = 15 if natural else 5
  config.init_from.trunk = ''  # the run of a pre-trained backbone
  learner = config.learner
  learner.hidden = 256 if natural else 512
  learner.aggregation = 'concat' if 'shot=1' in words or not arg else 'mean'
  learner.inner_rate = 0.01 if natural else 0.1
  learner.warmup_steps = common.of_steps(config, 1, 10)
  learner.switch_steps = common.of_steps(config, 1, 4)
  if published:
    _set_published(config, natural)
  config.eval.select_after = learner.get_ref('warmup_steps') + (
    learner.get_ref('switch_steps')
  )
  config = common.apply_variant(config, ','.join(words))
  if published and not natural:
    config.data.augment = 'none'
  return config


def _set_published(config, natural):
  """Set the authors' optimizer, schedule and episodes."""
  # Of the warm-up, of the mixture, of the training; 25 or 3 updates each.
  epochs = (100, 1_000, 4_000) if natural else (50, 500, 2_048)
  warmup, switch, total = epochs
  config.steps = total * (25 if natural else 3)
  learner = config.learner
  learner.warmup_steps = common.of_steps(config, warmup, total)
  learner.switch_steps = common.of_steps(config, switch, total)
  learner.labels = 'index'
  learner.inner_steps = 5 if natural else 1
  config.batch = 4 if natural else 32
  config.episode.query = 16
  optimizer = config.optimizer
  optimizer.learning_rate = 1e-3 if natural else 1e-2
  optimizer.schedule, optimizer.decay_rate = 'milestones', RATE_FACTOR
  optimizer.milestones = tuple(
    epoch / total for epoch in (warmup + 1, warmup + switch)
  )
  optimizer.clip = 0.0
