"""Continual HyperTransformer: sequences of tasks, one CNN rewritten on the way.

The generator of configs/hypertransformer.py with a prototypical loss; five
tasks of five classes an episode. The kinds 'reset', 'constant' (ConstPN) and
'merged' (MergedHT) are its baselines:

  python -m hyperudl.train --config=configs/continual.py:omniglot \
    --workdir=runs/continual
  python -m hyperudl.train --config=configs/continual.py:omniglot \
    --config.learner.kind=reset --workdir=runs/continual-reset
  python -m hyperudl.evaluate --workdir=runs/continual --once --tag=ten \
    --config.episode.tasks=10

`accuracy` is the mean over tasks after the last one, among all classes met
(`scenario` 'class') or those of the query's task ('task').
Ours: docs/results/hypertransformer.md.
"""

from configs import hypertransformer

# Fields of the HyperTransformer that sequences do not have.
NOT_HERE = (
  'head',
  'stage',
  'warmup_steps',
  'shared_head_weight',
  'shared_head_classes',
  'label_smoothing',
  'l2_reg_weight',
  'variation_weight',
)


def get_config(arg=None):
  config = hypertransformer.get_config(arg).unlock()
  if 'tasks=' not in (arg or ''):
    config.episode.tasks = 5
  if 'way=' not in (arg or ''):
    config.episode.way = 5  # also where one task of the reference has 20
  learner = config.learner
  learner.name = 'continual'
  learner.kind = 'continual'
  learner.scenario = 'class'
  learner.tasks = config.episode.tasks
  learner.change = 0.0
  learner.norm = 'layer'
  learner.logits_scale = 0.1
  for name in NOT_HERE:
    del learner[name]
  for name in ('shared', 'writer'):
    del config.init_from[name]
  return config.lock()
