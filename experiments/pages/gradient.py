"""The page of gradient-based learners: MAML and its relatives."""

from experiments import page
from experiments.page import Page
from experiments.page import Row

_CALIBRATION = {
  'accuracy': 'accuracy, %',
  'nll': 'NLL',
  'brier': 'Brier',
  'ece': 'ECE',
  'temperature': 'T',
  'nll_scaled': 'NLL / T',
  'ece_scaled': 'ECE / T',
  'auroc_entropy': 'AUROC entropy',
  'auroc_disagreement': 'AUROC disagreement',
}
# On all classes of --target; only where one is given.
_TARGET = ['--dataset={target}', '--episodes=1000', '--split=all']
_CROSS = {
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
_RATE = '--config.optimizer.learning_rate=5e-3'


def _maml():
  """Return {row: flags} of the variants of MAML, for 5-way episodes.

  MAML and first order take one step in training and three in tests, as
  published for Omniglot, Meta-SGD one in both, MAML++ and ANIL five. The
  learning rate is the better of 1e-3 and 5e-3 after a short training of MAML.
  """
  steps = '--config.steps=6000'
  single = [_RATE, *page.overrides(inner_steps=1, inner_rate=0.4)]
  one = [*single, '--config.learner.test_steps=3']
  return {
    'maml': ['--config.steps=8000', *one],
    # The multi-step loss over the published tenth of the training.
    'mamlpp': ['--config.steps=2000', _RATE, '--config.learner.multi_step=200'],
    'fomaml': [steps, *one],
    'anil': [steps, _RATE],
    'metasgd': [steps, *single],
  }


def _rows():
  """Return the rows of the page.

  Most are trained on 48,000 episodes, in half an hour on one core; MAML on
  64,000 and MAML++ on 16,000.
  """
  five = '{dataset},way=5,shot=1'
  both = {**page.test(), **_CROSS}
  rows = {
    name: Row(f'maml.py:{name},{five}', flags, both)
    for name, flags in _maml().items()
  }
  rows['maml'] = rows['maml']._replace(seeds=3)
  warm = ['--config.steps=6000', _RATE]
  warm += page.overrides(warmup_steps=600, switch_steps=1500)
  warm.append('--config.eval.select_after=2100')
  rows['hypermaml'] = Row(f'hypermaml.py:{five}', warm, both, seeds=3)
  rows['bayeshmaml'] = Row(
    f'bayeshmaml.py:{five}',
    [*warm, '--config.learner.kl_steps=6000'],
    {**both, **_SAMPLES},
  )
  return {**rows, **_more_steps(five, both), **_small_network()}


def _sweep(name, tag, counts):
  """Return evaluations with several values of a hyperparameter."""
  return page.merged(
    page.test(*page.overrides(**{name: count}), tag=f'{tag}{count}')
    for count in counts
  )


def _more_steps(five, evaluations):
  """Return first order with more steps, ensembles, and sweeps of test steps.

  First order takes five steps of .1 or ten of .05 in training, and 1 to 25 in
  tests. MAML++ has a checkpoint every 100 updates, of which an ensemble of the
  best five is tested. HyperMAML and HyperShot are also fine-tuned, by 1 to 100
  steps on each support.
  """
  steps = ['--config.steps=6000', _RATE]
  by_steps = _sweep('test_steps', 'steps', (1, 3, 10, 25))
  rows = {
    row: Row(f'maml.py:{name},{five}', steps, {**evaluations, **by_steps})
    for row, name in (('fomaml-5', 'fomaml'), ('fomaml-10', 'fomaml10'))
  }
  rows['mamlpp-ensemble'] = Row(
    f'maml.py:mamlpp,{five}',
    ['--config.steps=2000', _RATE, '--config.checkpoint_steps=100'],
    {**page.test(), **page.test('--step=best_ensemble', tag='ensemble')},
  )
  finetuned = _sweep('finetune_steps', 'finetune', (1, 5, 10, 50, 100))
  for row, name in (('hypermaml-finetune', 'hypermaml'), ('hypershot',) * 2):
    rows[row] = Row(f'{name}.py:{five}', steps, {**page.test(), **finetuned})
  return rows


def _small_network():
  """Return rows of 8 channels at 20 ways: MAML, MAML++ and what is between.

  They take five steps of .1, the published ones for 20 ways.
  """
  variants = {
    'maml': ('maml', {}),
    'mamlpp': ('mamlpp', {'multi_step': 500}),
    'maml-rates': ('maml', {'rates': 'leaf'}),
    'maml-norms': ('maml', {'step_norms': True}),
    'maml-adapted-norms': (
      'maml',
      {'step_norms': True, 'adapt_step_norms': True},
    ),
    'maml-multi-step': ('maml', {'multi_step': 300}),
    'maml-rates-multi-step': ('maml', {'rates': 'leaf', 'multi_step': 300}),
  }
  return {
    f'{row}-8-20way': Row(
      f'maml.py:{name},{{dataset}},way=20,shot=1,batch=4,query=2',
      [
        *('--config.steps=3000', _RATE, *page.overrides(**fields)),
        '--config.learner.channels=8,8,8,8',
      ],
      page.test(),
    )
    for row, (name, fields) in variants.items()
  }


PAGES = {'gradient': Page(_rows(), scores=_CALIBRATION, scored='uncertainty')}
