"""Rows of the page `film`: the film of `udl`'s CNN, by steps or by diffusion.

All rows share one autoencoder and one writer (`base`), and see as many episodes
above it. `diffusion` imitates films found with labels of queries and unlabelled
images, `diffusion-short` films a tenth as long; `amortised` (a perceptron on
the same condition) and `steps` (without labels) learn from the labels of
queries, through the network. `labelled` is, for a new episode, the film found
with labels of its unlabelled images; `unadapted` has none. Shifts: none, those
that the writer was trained on, and held out ones.
"""


def rows():
  """{row: (config, flags of the training, evaluations)}."""

  def shifted(*flags, tag=''):
    return {
      f'{tag}{shift}-test': [
        '--split=test',
        '--episodes=600',
        f'--config.data.shift={shift}',
        *flags,
        f'--tag={tag}{shift}',
      ]
      for shift in ('none', 'training', 'heldout')
    }

  upstream = lambda name: (
    f'--config.init_from.{name}={{folder}}/{name}-{{seed}}'
  )
  base = upstream('base')
  budget = ['--config.steps=1500', '--config.batch=12']
  alone = ['cluster=0', 'inner_steps=0', 'gate=none']
  alone = [f'--config.learner.{setting}' for setting in alone]
  amortised = [base, *budget, *alone, '--config.learner.start=amortised']
  diffused = shifted()
  for gamma in ('0', '1.5'):
    diffused |= shifted(f'--config.learner.gamma={gamma}', tag=f'gamma{gamma}-')
  diffused |= shifted('--config.learner.samples=8', tag='samples8-')
  short = ['target_steps=3', 'target_rate=0.1']
  short = [f'--config.learner.{setting}' for setting in short]
  film = 'hyperldm_film.py:{dataset}'
  return {
    'vae': ('vae.py:{dataset}', ['--config.steps=2500'], {}),
    'base': (
      'udl.py:base,{dataset}',
      ['--config.steps=2500', upstream('vae')],
      {},
    ),
    'steps': (
      'udl.py:inner,{dataset}',
      [base, *budget, '--config.learner.cluster=0'],
      shifted(),
    ),
    'amortised': ('udl.py:inner,{dataset}', amortised, shifted()),
    'diffusion': (film, [base, *budget], diffused),
    'diffusion-short': (film, [base, *budget, *short], shifted()),
  }
