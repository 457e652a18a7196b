"""The pages of the HyperTransformer: accuracy, unlabelled images, sequences."""

from experiments import page
from experiments.page import Page
from experiments.page import Row

_FIVE = '{dataset},way=5,shot=1'
_FORGETTING = {
  f'{score}_{scenario}{ending}': f'{title}, {scenario}, %'
  for scenario in ('class', 'task')
  for score, ending, title in (
    ('accuracy', '', 'after the last task'),
    ('accuracy', '_when_met', 'when met'),
    ('forgetting', '', 'forgetting'),
    ('backward_transfer', '', 'backward transfer'),
  )
}


def _accuracy():
  """Return rows of a network of eight channels, generated or learned.

  All are trained for about the same time, in which a learned network takes
  three times the updates of a generated one. Learning rates are the best on
  `valid` after 2,500 updates of 20 ways: of 1e-3, 5e-3, 2e-2, 5e-2 (and 1e-1)
  where the network is learned, of 3e-4, 1e-3 and 3e-3 for `prototypes`;
  `logits` has that of its config, 1e-3. `prototypes` has the number of encoder
  layers that is better on `valid`: three at 20 ways (77.5%; one layer 75.0%)
  and one at 5 (88.8%; three layers 86.7%).
  """
  rows = {}
  test, longer = page.test(), '--config.steps=24000'
  prototypes = page.overrides(head='prototypes', logits_scale=0.1)
  others = page.merged(
    page.test(f'--config.episode.emit_from={source}', tag=source)
    for source in ('mean', 'other')
  )
  for way, variant in ((20, '{dataset},way=20,shot=1,query=3'), (5, _FIVE)):
    net = f'hypertransformer.py:{variant}'
    generated = prototypes + (page.overrides(layers=1) if way == 5 else [])
    rows[f'prototypes-{way}way'] = Row(net, generated, test | others, seeds=3)
    rows[f'protonet-8-{way}way'] = Row(
      f'protonet.py:{variant}',
      [
        *('--config.learner.channels=8,8,8,8', longer),
        '--config.optimizer.learning_rate=5e-2',
      ],
      test,
      seeds=3,
    )
    # The network that the others generate, learned directly.
    learned = page.overrides(trained_layers=4, shared='none', features=1)
    rate = '--config.optimizer.learning_rate=2e-2'
    flags = [*prototypes, *learned, rate, longer]
    rows[f'learned-{way}way'] = Row(net, flags, test)
    rows[f'logits-{way}way'] = Row(net, [], test)
  return rows


def _semi():
  """Return rows by unlabelled images per class and by encoder layers.

  5-way 1-shot, generated logits. All start from a network that was trained
  without unlabelled images: from scratch, the weight generator does not learn
  which images are labelled among 20 unlabelled ones (6,000 updates with 4 per
  class: 51.8 +- 1.0 % with three layers).
  """
  rows = {}
  net, test = f'hypertransformer.py:{_FIVE}', page.test()
  for layers in (3, 1):
    ending = f'{layers}layer{"s" if layers > 1 else ""}'
    deep = page.overrides(layers=layers)
    rows[f'base-{ending}'] = Row(net, [*deep, '--config.steps=6000'], test)
    upstream = [
      page.upstream(n, f'base-{ending}') for n in ('shared', 'writer')
    ]
    flags = [*deep, '--config.steps=3000', *upstream]
    for count in (0, 4, 9):
      rows[f'unlabelled-{count}-{ending}'] = Row(
        f'{net},unlabelled={count}',
        flags,
        test,
        reference=f'unlabelled-0-{ending}' if count else '',
      )
  return rows


def _continual():
  """Return rows of sequences of tasks, of the length of training and twice it.

  MergedHT has labels only for as many tasks as in training. ConstPN is learned
  and has the best of several rates; `continual`, `reset` and the others have
  1e-3, although `reset` was better with 3e-3 after 400 updates; with 2e-3
  `continual` was far worse after 1,600.
  """
  ten = page.test('--config.episode.tasks=10', tag='10tasks')
  kinds = {
    'continual': page.overrides(kind='continual'),
    'changes': page.overrides(kind='continual', change=0.1),
    'reset': page.overrides(kind='reset'),
    'merged': page.overrides(kind='merged'),
    'constant': page.overrides(kind='constant'),
  }
  rows = {}
  for name, flags in kinds.items():
    flags += ['--config.steps=1600', '--config.optimizer.warmup_steps=100']
    if name == 'constant':  # the best of 1e-3, 5e-3 and 2e-2
      flags.append('--config.optimizer.learning_rate=2e-2')
    evaluations = page.test() | ({} if name == 'merged' else ten)
    rows[name] = Row(f'continual.py:{_FIVE}', flags, evaluations)
  return rows


PAGES = {
  'hypertransformer': Page(_accuracy()),
  'semi': Page(_semi()),
  'continual': Page(_continual(), scores=_FORGETTING),
}
