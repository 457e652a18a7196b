"""Configures the Continual HyperTransformer: one CNN per task of a sequence.

It has the generator of configs/hypertransformer.py and a prototypical loss; an
episode is five tasks of five classes. The kinds 'reset', 'constant' (ConstPN)
and 'merged' (MergedHT) are baselines:

  python -m hyperudl.train --config=configs/continual.py:omniglot \
    --workdir=runs/continual
  python -m hyperudl.train --config=configs/continual.py:omniglot \
    --config.learner.kind=reset --workdir=runs/continual-reset
  python -m hyperudl.evaluate --workdir=runs/continual --once --tag=ten \
    --config.episode.tasks=10

`accuracy` is measured after the last task and averaged over all tasks, among
all classes (`scenario` 'class') or among those of the query's task ('task').
Our results: docs/results/hypertransformer.md.
"""

from configs import hypertransformer


def get_config(arg=None):
  config = hypertransformer.get_config(arg, 'continual').unlock()
  if 'tasks=' not in (arg or ''):
    config.episode.tasks = 5
  if 'way=' not in (arg or ''):
    config.episode.way = 5  # even if one task of the reference has 20
  config.learner.tasks = config.episode.tasks
  return config.lock()
