"""The rows of the results pages that `results.py` trains: PAGES."""

import film_page
import language_page

# Every evaluation: name -> flags of hyperudl.evaluate.
TEST = {'test': ['--split=test', '--episodes=1000']}


def _by_shots(way, shots, tag=''):
  """Episodes of `way` classes with 5 queries each, by labelled images."""
  return {
    f'{tag}{shot}shot-test': [
      '--split=test',
      '--episodes=1000',
      f'--way={way}',
      f'--shot={shot}',
      '--config.episode.query=5',
      f'--tag={tag}{shot}shot',
    ]
    for shot in shots
  }


SHOTS = _by_shots(5, (1, 2, 5, 10))
# On all classes of --target; only where one is given.
_TARGET = ['--dataset={target}', '--episodes=1000', '--split=all']
CROSS = {
  '{target}-all': _TARGET,
  '{target}-uncertainty-all': [*_TARGET, '--uncertainty'],
}
_SAMPLES = {
  '{target}-samples-uncertainty-all': [
    *_TARGET,
    '--uncertainty',
    '--config.learner.test_samples=100',
    '--config.learner.average=probabilities',
    '--tag={target}-samples',
  ]
}

_FIVE = '{dataset},way=5,shot=1'
_TWENTY = '{dataset},way=20,shot=1'
_SMALL = ['--config.learner.channels=8,8,8,8']


def _gradient():
  """48,000 episodes, half an hour on one core; MAML 64,000, MAML++ 16,000.

  MAML and first order take one step in training and three in tests, as
  published for Omniglot, Meta-SGD one in both, MAML++ and ANIL five. The
  learning rate is the better of 1e-3 and 5e-3 after a short training of MAML.
  """
  rate = ['--config.optimizer.learning_rate=5e-3']
  steps = ['--config.steps=6000']
  single = [
    *rate,
    '--config.learner.inner_steps=1',
    '--config.learner.inner_rate=0.4',
  ]
  one = [*single, '--config.learner.test_steps=3']
  # The multi-step loss over the published tenth of the training.
  five = ['--config.steps=2000', *rate, '--config.learner.multi_step=200']
  both = {**TEST, **CROSS}
  rows = {
    name: (f'maml.py:{name},{_FIVE}', flags, both)
    for name, flags in {
      'maml': ['--config.steps=8000', *one],
      'mamlpp': five,
      'fomaml': [*steps, *one],
      'anil': [*steps, *rate],
      'metasgd': [*steps, *single],
    }.items()
  }
  warm = [
    *steps,
    *rate,
    '--config.learner.warmup_steps=600',
    '--config.learner.switch_steps=1500',
    '--config.eval.select_after=2100',
  ]
  rows['hypermaml'] = f'hypermaml.py:{_FIVE}', warm, both
  rows['bayeshmaml'] = (
    f'bayeshmaml.py:{_FIVE}',
    [*warm, '--config.learner.kl_steps=6000'],
    {**both, **_SAMPLES},
  )
  # Five steps of .1, the published ones for 20 ways.
  for name, flags in {
    'maml': [],
    'mamlpp': ['--config.learner.multi_step=500'],
  }.items():
    config = f'maml.py:{name},{_TWENTY},batch=4,query=2'
    flags = ['--config.steps=3000', *rate, *flags, *_SMALL]
    rows[f'{name}-8-20way'] = config, flags, TEST
  return rows


def _metric():
  """Distances, and hallucination: with 0 of them it is `protonet-5way`.

  360,000 images each: 1,500 updates of 8 episodes of 30 images, or of 4 of 60
  where it trains on 20 ways (of 2 queries a class). The learning rate is the
  best on `valid` of 1e-3, 5e-3 and 2e-2 after 800 updates of 20 ways.
  """
  steps = ['--config.steps=1500', '--config.optimizer.learning_rate=5e-3']
  few = f'{_TWENTY},batch=4,query=2'
  both = {**SHOTS, **_by_shots(20, (1, 5), '20way-')}
  rows = {
    'protonet-20way': (f'protonet.py:{few}', steps, both),
    'protonet-5way': (f'protonet.py:{_FIVE}', steps, SHOTS),
  }
  for distance in ('l2', 'cosine', 'dot'):
    for learned in (True, False):
      flags = [
        *steps,
        f'--config.learner.distance={distance}',
        f'--config.learner.learn_scale={learned}',
      ]
      name = f'protonet-{distance}-{"learned" if learned else "fixed"}'
      if name != 'protonet-l2-learned':  # protonet-5way
        rows[name] = f'protonet.py:{_FIVE}', flags, SHOTS
  for count in (10, 50, 100):
    flags = [*steps, f'--config.learner.count={count}']
    rows[f'hallucination-{count}'] = f'hallucination.py:{_FIVE}', flags, SHOTS
  # The control: one shift of the prototype, no noise.
  flags = [*steps, '--config.learner.count=1', '--config.learner.noise=zero']
  rows['hallucination-no-noise'] = f'hallucination.py:{_FIVE}', flags, SHOTS
  return rows


def _hypertransformer():
  """Eight channels, written or learned, for about the same time.

  A learned network takes three times the updates of a written one in it.
  Learning rates are the best on `valid` after 2,500 updates of 20 ways: of
  1e-3, 5e-3, 2e-2, 5e-2 (and 1e-1) where the network is learned, of 3e-4, 1e-3
  and 3e-3 for `prototypes`; `logits` has that of its config, 1e-3. Of one and
  three encoder layers `prototypes` has the better on `valid`, three at 20 ways
  (77.5 and 75.0%) and one at 5 (86.7 and 88.8%).
  """
  rows = {}
  prototypes = [
    '--config.learner.head=prototypes',
    '--config.learner.logits_scale=0.1',
  ]
  others = {
    f'{source}-test': [
      *TEST['test'],
      f'--config.episode.emit_from={source}',
      f'--tag={source}',
    ]
    for source in ('mean', 'other')
  }
  for way, variant in ((20, f'{_TWENTY},query=3'), (5, _FIVE)):
    net = f'hypertransformer.py:{variant}'
    written = prototypes + (['--config.learner.layers=1'] if way == 5 else [])
    rows[f'prototypes-{way}way'] = net, written, {**TEST, **others}
    longer = '--config.steps=24000'
    rate = '--config.optimizer.learning_rate=5e-2'
    flags = [*_SMALL, longer, rate]
    rows[f'protonet-8-{way}way'] = f'protonet.py:{variant}', flags, TEST
    # The very network that is written, learned.
    learned = [
      *prototypes,
      '--config.learner.trained_layers=4',
      '--config.learner.shared=none',
      '--config.learner.features=1',
      '--config.optimizer.learning_rate=2e-2',
      longer,
    ]
    rows[f'learned-{way}way'] = net, learned, TEST
    rows[f'logits-{way}way'] = net, [], TEST
  return rows


def _semi():
  """Unlabelled images a class, and encoder layers: logits of 5-way 1-shot.

  All go on from a network that was trained without unlabelled images: among
  20 of them the writer does not find the labelled ones from scratch (6,000
  updates with 4 a class: 51.8 +- 1.0 % with three layers).
  """
  rows = {}
  for layers in (3, 1):
    ending = f'{layers}layer{"s" if layers > 1 else ""}'
    deep = f'--config.learner.layers={layers}'
    net = 'hypertransformer.py:' + _FIVE
    rows[f'base-{ending}'] = net, [deep, '--config.steps=6000'], TEST
    start = [
      f'--config.init_from.{part}={{folder}}/base-{ending}-{{seed}}'
      for part in ('shared', 'writer')
    ]
    for count in (0, 4, 9):
      flags = [deep, '--config.steps=3000', *start]
      row = f'unlabelled-{count}-{ending}'
      rows[row] = f'{net},unlabelled={count}', flags, TEST
  return rows


def _continual():
  """Sequences of tasks, as many as in training and twice as many."""
  ten = [*TEST['test'], '--config.episode.tasks=10', '--tag=10tasks']
  # MergedHT has labels for as many tasks as in training alone.
  both, five = {**TEST, '10tasks-test': ten}, TEST
  kinds = {
    'continual': (['kind=continual'], both),
    'changes': (['kind=continual', 'change=0.1'], both),
    'reset': (['kind=reset'], both),
    'merged': (['kind=merged'], five),
    'constant': (['kind=constant'], both),
  }
  rows = {}
  for name, (settings, evaluations) in kinds.items():
    flags = [f'--config.learner.{setting}' for setting in settings]
    flags += ['--config.steps=1600', '--config.optimizer.warmup_steps=100']
    if name == 'constant':
      # After 400 updates the best of 1e-3, 5e-3 and 2e-2. The others have
      # that of their config, 1e-3: with 3e-3 `reset` was ahead after 400, with
      # 2e-3 `continual` was far behind after 1,600.
      flags.append('--config.optimizer.learning_rate=2e-2')
    rows[name] = f'continual.py:{_FIVE}', flags, evaluations
  return rows


PAGES = {
  'guidance': language_page.rows,
  'film': film_page.rows,
  'gradient': _gradient,
  'metric': _metric,
  'hypertransformer': _hypertransformer,
  'semi': _semi,
  'continual': _continual,
}

# {page: {row: the row whose accuracies are subtracted, episode by episode}}.
REFERENCES = {page: {} for page in PAGES}
REFERENCES['metric'] = {
  row: 'protonet-5way' for row in _metric() if not row.endswith('way')
}
REFERENCES['semi'] = {
  row: f'unlabelled-0-{row.rpartition("-")[2]}'
  for row in _semi()
  if not row.startswith(('unlabelled-0', 'base'))
}
REFERENCES['guidance'] = {
  row: 'multitask'  # sees no language
  for row in language_page.rows()
  if row not in ('contrastive', 'multitask')
}

# Training seeds of a row, one where it says nothing.
SEEDS = {page: {} for page in PAGES}
SEEDS['gradient'] = {'maml': 3, 'hypermaml': 3}
SEEDS['metric'] = {'protonet-20way': 3}
SEEDS['hypertransformer'] = {
  f'{row}-{way}way': 3
  for row in ('prototypes', 'protonet-8')
  for way in (20, 5)
}
SEEDS['guidance'] = dict.fromkeys(language_page.rows(), 3)
