"""The page of the models that come with the library: `experiments/ship.py`.

All test sets but `glyphs` are of another origin than the training images:
drawn characters, rubbings of carved ones, digits. Episodes have no added shift.
"""

from experiments import page
from experiments.page import Page
from experiments.page import Row

# Data set, split, and pairs of ways and shots.
_TESTS = (
  ('glyphs', 'test', ((5, 1), (20, 1))),
  ('omniglot_background', 'test', ((5, 1), (5, 5), (10, 1), (20, 1))),
  ('oracle', 'all', ((5, 1), (5, 5), (10, 1))),
  ('mnist', 'all', ((5, 1), (5, 5), (10, 1))),
)
_EPISODES = 600
# Trained under every shift, and on images that look like scans.
_LOOKS = ['--config.data.shift=all', '--config.data.augment=scans']
# 2 to 20 classes of 1 to 5 labelled images.
_SIZES = ['--config.episode.way_range=2,20', '--config.episode.shot_range=1,5']
_VARIANT = '{dataset},way=5,shot=1,query=2,batch=4'


def _evaluations():
  return page.merged(
    page.test(
      f'--dataset={name}',
      f'--way={way}',
      f'--shot={shot}',
      *('--config.data.shift=none', '--config.episode.query=5'),
      tag=f'{name}-{way}way-{shot}shot',
      episodes=_EPISODES,
      split=split,
    )
    for name, split, sizes in _TESTS
    for way, shot in sizes
  )


def _rows():
  """Return the candidates for `glyphs`, and ridge regression of pixels."""
  return {
    'vae': Row('vae.py:{dataset}', ['--config.steps=3000']),
    'base': Row(
      f'udl.py:base,{_VARIANT},steps=7000',
      [
        *(page.upstream('vae'), *_LOOKS, *_SIZES),
        *page.overrides(label_encoding='random_table'),
      ],
      _evaluations(),
    ),
    'udl': Row(
      f'udl.py:inner,{_VARIANT},steps=400',
      [
        *(page.upstream('base'), *_LOOKS, *_SIZES),
        *page.overrides(label_encoding='random_table'),
      ],
      _evaluations(),
    ),
    'protonet': Row(
      f'protonet.py:{_VARIANT},steps=6000,unlabelled=5',
      [
        *(*_LOOKS, *_SIZES),
        *page.overrides(norm='group', refine=3, gate=True),
      ],
      _evaluations(),
    ),
    'ridge': Row(
      'baseline.py:{dataset},way=5,shot=1',
      page.overrides(kind='ridge'),
      _evaluations(),
    ),
  }


PAGES = {'models': Page(_rows(), scores={'accuracy_unadapted': 'unadapted, %'})}
