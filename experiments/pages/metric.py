"""The page of prototypical networks: distances, shots and hallucination."""

from experiments import page
from experiments.page import Page
from experiments.page import Row

# Measures of the generated features: see `learners/hallucination.py`.
_SCORES = {
  'diversity': 'diversity',
  'purity': 'purity',
  'prototype_error': 'prototype error',
}


def _by_shots(way, shots, tag=''):
  """Return evaluations on `way` classes, 5 queries each, by labelled images."""
  return page.merged(
    page.test(
      f'--way={way}',
      f'--shot={shot}',
      '--config.episode.query=5',
      tag=f'{tag}{shot}shot',
    )
    for shot in shots
  )


def _rows():
  """Return the rows of the page, each trained on 360,000 images.

  These are 1,500 updates of 8 episodes of 30 images or, for training on 20 ways
  (with 2 queries per class), of 4 episodes of 60. The learning rate is the best
  on `valid` of 1e-3, 5e-3 and 2e-2 after 800 updates of 20 ways. Hallucination
  of 0 examples would be `protonet-5way`.
  """
  steps = ['--config.steps=1500', '--config.optimizer.learning_rate=5e-3']
  five = '{dataset},way=5,shot=1'
  shots = _by_shots(5, (1, 2, 5, 10))
  rows = {
    'protonet-20way': Row(
      'protonet.py:{dataset},way=20,shot=1,batch=4,query=2',
      steps,
      {**shots, **_by_shots(20, (1, 5), '20way-')},
      seeds=3,
    ),
    'protonet-5way': Row(f'protonet.py:{five}', steps, shots),
  }

  def add(name, config, **fields):
    flags = [*steps, *page.overrides(**fields)]
    config = f'{config}.py:{five}'
    rows[name] = Row(config, flags, shots, reference='protonet-5way')

  for distance in ('l2', 'cosine', 'dot'):
    for learned in (True, False):
      name = f'protonet-{distance}-{"learned" if learned else "fixed"}'
      if name != 'protonet-l2-learned':  # protonet-5way
        add(name, 'protonet', distance=distance, learn_scale=learned)
  for count in (10, 50, 100):
    add(f'hallucination-{count}', 'hallucination', count=count)
  # The control: a learned shift of the prototype, without noise.
  add('hallucination-no-noise', 'hallucination', count=1, noise='zero')
  # A ridge regression in place of class means, which can use a spread: without
  # generated features, with one made without noise, and with many.
  for count, noise in ((0, 'zero'), (1, 'zero'), (10, 'gaussian')):
    add(
      f'ridge-{count}',
      'hallucination',
      count=count,
      noise=noise,
      classifier='ridge',
      scale=10.0,  # regressions of one-hot targets differ by less than 1
    )
  return rows


PAGES = {'metric': Page(_rows(), scores=_SCORES, scored='shot', both=True)}
