"""The page of tasks that ask for different things, on `glyph_attributes`.

All classes of an episode are values of one attribute, which only the support
tells. 5-way 5-shot, classes of values that no training saw.
"""

from experiments import page
from experiments.page import Page
from experiments.page import Row

ATTRIBUTES = ('letter', 'ink', 'tile', 'place', 'size', 'texture')
_TASKS = '{dataset},way=5,shot=5'
_GENERATED = page.overrides(head='prototypes', logits_scale=0.1)


def _from_others(split='test', episodes=1000):
  """Return evaluations with weights generated from other supports."""
  return page.merged(
    page.test(
      f'--config.episode.emit_from={source}',
      tag=source,
      split=split,
      episodes=episodes,
    )
    for source in ('mean', 'other')
  )


def _main():
  """Return the rows: networks generated for a task, or learned for all.

  Learning rates are the best on `valid`, see the page `attributes-rates`.
  """
  test = page.test()
  net = f'hypertransformer.py:{_TASKS}'
  protonet = f'protonet.py:{_TASKS}'
  learned = page.overrides(trained_layers=4, shared='none', features=1)
  rate = '--config.optimizer.learning_rate={}'.format
  rows = {
    'prototypes': Row(net, _GENERATED, test | _from_others()),
    'learned': Row(net, [*_GENERATED, *learned, rate('2e-2')], test),
    'protonet-8': Row(
      protonet, ['--config.learner.channels=8,8,8,8', rate('2e-2')], test
    ),
    'protonet-64': Row(protonet, [rate('2e-3')], test),
    'maml-64': Row(f'maml.py:{_TASKS}', [], test),
    'caml-8': Row(
      f'caml.py:{_TASKS}', ['--config.learner.channels=8,8,8,8'], test
    ),
    'caml-64': Row(f'caml.py:{_TASKS}', [], test),
  }
  return {
    name: row._replace(
      seeds=3, reference='' if name == 'prototypes' else 'prototypes'
    )
    for name, row in rows.items()
  }


PAGES = {
  'attributes': Page(
    _main(),
    scores={f'accuracy/{name}': f'{name}, %' for name in ATTRIBUTES},
  ),
}
