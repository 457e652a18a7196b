"""The pages of the models that come with the library: `experiments/ship.py`.

`models` is of characters: all test sets but `glyphs` are of another origin than
the training images, drawn characters, rubbings of carved ones, digits.
`models-photos` is of photographs of products of kinds that no training saw.
Episodes have no added shift.
"""

from experiments import page
from experiments.page import Page
from experiments.page import Row

# Data set, split, and pairs of ways and shots.
_TESTS = (
  ('glyphs', 'valid', ((5, 1), (20, 1))),  # chooses the model
  ('glyphs', 'test', ((5, 1), (20, 1))),
  ('omniglot_background', 'test', ((5, 1), (5, 5), (10, 1), (20, 1))),
  ('oracle', 'all', ((5, 1), (5, 5), (10, 1))),
  ('mnist', 'all', ((5, 1), (5, 5), (10, 1))),
)
_PHOTOS = ((5, 1), (5, 5), (10, 1), (10, 5))  # ways and shots
_EPISODES = 600
# Trained under every shift, and on images that look like scans.
_LOOKS = ['--config.data.shift=all', '--config.data.augment=scans']
# 2 to 20 classes of 1 to 5 labelled images.
_SIZES = ['--config.episode.way_range=2,20', '--config.episode.shot_range=1,5']
# Where any number of images will do, 20 ways teach most (page `ways`).
_TWENTY = '{dataset},way=20,shot=1,query=2,batch=2'
_VARIANT = '{dataset},way=5,shot=1,query=2,batch=2'


def _evaluations(*flags):
  return page.merged(
    page.test(
      f'--dataset={name}',
      f'--way={way}',
      f'--shot={shot}',
      *('--config.data.shift=none', '--config.episode.query=5', *flags),
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
      f'protonet.py:{_TWENTY},unlabelled=2,steps=2500',
      [*_LOOKS, *page.overrides(norm='group', refine=3, gate=True)],
      _evaluations('--config.episode.unlabelled=5'),
    ),
    'ridge': Row(
      'baseline.py:{dataset},way=5,shot=1',
      page.overrides(kind='ridge'),
      _evaluations(),
    ),
  }


def _photos():
  """Return the candidate for `photos`, and baselines that learn only a mean."""
  evaluations = page.merged(
    page.test(
      f'--way={way}',
      f'--shot={shot}',
      '--config.episode.query=5',
      tag=f'{way}way-{shot}shot',
      episodes=_EPISODES,
    )
    for way, shot in _PHOTOS
  )
  untrained = '{dataset},way=5,shot=1'
  histogram = page.overrides(features='color_histogram')
  # The split has 14 validation classes.
  variant = '{dataset},way=14,shot=1,query=2,batch=3,unlabelled=2,steps=2000'
  return {
    'protonet': Row(
      f'protonet.py:{variant}',
      page.overrides(norm='group', refine=3, gate=True),
      evaluations,
    ),
    'pixels': Row(
      f'baseline.py:{untrained}',
      page.overrides(kind='nearest_mean'),
      evaluations,
    ),
    'histogram': Row(
      f'baseline.py:{untrained}',
      page.overrides(kind='nearest_mean') + histogram,
      evaluations,
    ),
    'histogram-ridge': Row(
      f'baseline.py:{untrained}',
      page.overrides(kind='ridge') + histogram,
      evaluations,
    ),
  }


_SCORES = {
  'accuracy_unadapted': 'unadapted, %',
  'accuracy - accuracy_unadapted': 'gain, %',
}
PAGES = {
  'models': Page(_rows(), scores=_SCORES, both=True),
  'models-photos': Page(_photos()),
}
