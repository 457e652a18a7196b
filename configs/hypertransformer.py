"""Configures the HyperTransformer with the settings of the authors' scripts.

The network depends on the data set: Omniglot-like sets use 8 channels, 2 heads
and 32 shared features; natural images 16 channels (tieredImageNet 8), 8 heads
at half width and 16 shared features. The optimizer is ours (Adam with warm-up,
8 episodes per update). With `reference` as the first word of the variant it is
theirs: plain SGD, one episode per update, 4,000,000 updates, and queries that
may be support images; for Omniglot also 20 ways and the splits 0-1149,
1150-1199 and 1200-1622 of the shuffled classes:

  python -m hyperudl.train --workdir=runs/ht \
    --config=configs/hypertransformer.py:omniglot,way=20,shot=1
  python -m hyperudl.train --workdir=runs/ht_reference \
    --config=configs/hypertransformer.py:reference,omniglot,shot=1

Their evaluations have 100 queries: `evaluate --once --tag=reference
--config.episode.query=5` (for 20 ways; query=20 for 5 ways). Their flags
correspond to these fields: `balanced_batches=False` to
data.support_query=joint; `apply_image_augmentations` together with other
augmentations to data.augment=episode+images; `test_rotation_probability=.5` to,
for instance, `evaluate --once --tag=turned --config.data.augment=episode
--config.data.augment_tests=True --config.data.episode_augment.rotate=.5`.

init_from.shared and init_from.writer load the networks of another run as
initial values, for instance of one without unlabelled images.

Published: Omniglot 20-way 1-shot, 8 channels, 87.2% (arXiv:2201.04182; there
5% of the queries are support images). Our results: docs/results/first.md and
hypertransformer.md, where learner.head='prototypes' (no generated logits layer)
learns far faster. With learner.head='class_weights' the class means are only
the initial values of generated class weights, which also depend on the shared
features of the support; learner.shared_init='he' lets these differ between
images from the start.
"""

from configs import common

NATURAL = (*common.NATURAL, 'cifar10')


def get_config(arg=None, learner='hypertransformer'):
  words = (arg or '').split(',')
  reference = words[0] == 'reference'
  rest = words[1:] if reference else words
  config = common.base(learner)
  config.steps = 8_000
  config.batch = 8
  # Post-LN transformers need a warm-up; docs/results/first.md describes what
  # happened at 2e-3 without one.
  config.optimizer.learning_rate = 1e-3
  config.optimizer.warmup_steps = common.of_steps(config, 1, 16)
  config.optimizer.clip = 1.0
  dataset = rest[0] if rest else ''
  natural = dataset in NATURAL
  if reference:
    _set_reference(config, dataset, natural, shot5='shot=5' in words)
  if natural:
    channels = 8 if dataset == 'tieredimagenet' else 16
    config.learner.update(
      channels=channels,
      features=channels,
      shared_dim=16,
      heads=8,
      key_query=0.5,
      value=0.5,
      inner=0.5,
      activation='lrelu',
      nonlinearity='lrelu',
    )
  if learner == 'hypertransformer':
    config.init_from = {'shared': '', 'writer': ''}
  return common.apply_variant(config, ','.join(rest))


def _set_reference(config, dataset, natural, shot5):
  """Set the authors' optimizer, episodes and splits."""
  config.steps = 4_000_000
  config.batch = 1
  config.checkpoint_steps = 50_000
  config.optimizer.name = 'sgd'
  config.optimizer.learning_rate = 0.01 if natural else 0.02
  config.optimizer.schedule = 'exponential'
  config.optimizer.clip = 0.0
  config.optimizer.warmup_steps = 0
  config.data.support_query = 'reference'
  config.eval.episodes = 1024
  config.episode.query = 20 if natural else 5 if shot5 else 3
  if dataset == 'omniglot':
    config.episode.way = 20
    config.data.classes = '0-1149/1150-1199/1200-1622'
    config.data.shuffle_classes = 2022
