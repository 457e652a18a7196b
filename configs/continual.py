"""Continual HyperTransformer: sequences of tasks, a CNN generated after each.

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


def get_config(arg=None):
  config = hypertransformer.get_config(arg, 'continual').unlock()
  if 'tasks=' not in (arg or ''):
    config.episode.tasks = 5
  if 'way=' not in (arg or ''):
    config.episode.way = 5  # also where one task of the reference has 20
  config.learner.tasks = config.episode.tasks
  return config.lock()
