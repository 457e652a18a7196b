"""The page of networks for any number of classes: `episode.way_range`."""

from experiments import page
from experiments.page import Page
from experiments.page import Row

EPISODES = 200
_TESTS = ((5, 1), (5, 5), (10, 1), (20, 1))  # ways and shots
_RANGES = ['--config.episode.way_range=2,20']
# Characters have 20 images: 15 are left beside the queries, 10 beside the
# unlabelled images too.
_SHOTS = {'protonet': 15, 'udl': 10}
_UDL = ['--config.learner.condition=none', '--config.data.shift=none']


def _evaluations(*flags):
  """Return the evaluations of a row, 5 queries of each class."""
  return page.merged(
    page.test(
      f'--way={way}',
      f'--shot={shot}',
      '--config.episode.query=5',
      *flags,
      tag=f'{way}way-{shot}shot',
      episodes=EPISODES,
    )
    for way, shot in _TESTS
  )


def _rows():
  """Return the rows: each learner with three kinds of training episodes.

  The vectors of labels of `udl` are those of a table, so that a network trained
  on 5 ways can be tested on 20; 'labels' has one for each label.
  """
  rows = {}
  for name, config in (('protonet', 'protonet.py:'), ('udl', 'udl.py:base,')):
    common = ['--config.steps=300', '--config.batch=4']
    common += ['--config.learner.channels=16,16,16,16']
    if name == 'udl':
      common += _UDL + page.overrides(label_encoding='random_table')
      config += '{dataset},unlabelled=2'
    else:
      config += '{dataset}'
    shots = f'--config.episode.shot_range=1,{_SHOTS[name]}'
    varying = [*common, *_RANGES, shots]
    add = lambda kind, variant, flags: rows.update(
      {f'{name}-{kind}': Row(config + variant, flags, _evaluations())}
    )
    add('5way-1shot', ',way=5,shot=1', common)
    add('20way-1shot', ',way=20,shot=1,query=2', common)
    add('ranges', ',way=5,shot=1,query=2', varying)
    same = '--config.episode.shots_per=episode'
    add('ranges-even', ',way=5,shot=1,query=2', [*varying, same])
  for encoding in ('learned', 'equiangular'):
    flags = [*varying, *page.overrides(label_encoding=encoding)]
    add(f'ranges-{encoding}', ',way=5,shot=1,query=2', flags)
  return rows


PAGES = {'ways': Page(_rows())}
