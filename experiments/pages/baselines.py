"""The page of baselines: known methods on features or pixels, and ours."""

from experiments import page
from experiments.page import Page
from experiments.page import Row

_SUPERVISED = ('nearest_mean', 'simpleshot', 'ridge', 'logistic', 'finetune')
_UNLABELLED = ('soft_k_means', 'tim', 'pt_map')
_IMAGES = 15  # unlabelled, of each class


def _by_shots():
  """Return evaluations with 1 and 5 labelled rows and 15 queries a class."""
  flags = ['--config.episode.query=15']
  return page.merged(
    page.test(f'--shot={shot}', *flags, tag=f'{shot}shot', episodes=600)
    for shot in (1, 5)
  )


def _rows():
  """Return the rows of the page.

  Rows `..._queries` have the queries in place of unlabelled rows, 15 a class
  too. On images the last three rows train Conv4; on features they train a
  scale and a centre, a gate, or the last layer.
  """
  variant = '{dataset},way=5,shot=1'
  unlabelled = f'{variant},unlabelled={_IMAGES}'
  rows = {}

  def add(name, config, *flags, **fields):
    flags = [*flags, *page.overrides(**fields)]
    reference = 'ridge' if name != 'ridge' else ''
    rows[name] = Row(config, flags, _by_shots(), reference=reference)

  for kind in _SUPERVISED:
    add(kind, f'baseline.py:{variant}', kind=kind)
  for kind in _UNLABELLED:
    add(kind, f'baseline.py:{unlabelled}', kind=kind)
  for kind in ('tim', 'pt_map'):
    queries = '--config.episode.transductive=True'
    add(f'{kind}_queries', f'baseline.py:{variant}', queries, kind=kind)
  steps = '--config.steps=1000'
  ours = {'distance': 'cosine', 'scale': 10.0}
  add('protonet', f'protonet.py:{variant}', steps, **ours)
  gate = {'refine': 3, 'gate': True}
  add('protonet_gate', f'protonet.py:{unlabelled}', steps, **ours, **gate)
  # 1 / |f|^2 of the features of docs/results/baselines.md; it is learned.
  rates = {'rates': 'leaf', 'inner_rate': 0.01}
  add('maml_head', f'maml.py:anil,{variant}', steps, **rates)
  return rows


PAGES = {'baselines': Page(_rows())}
