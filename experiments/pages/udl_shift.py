"""The pages of `udl` about the shift that its inner loop infers."""

from experiments import page
from experiments.page import Row
from experiments.pages import udl_layout as layout
from experiments.pages import udl_variants as variants

# phi without one of its parts, and the former default.
_PARTS = ('no_blend', 'from_identity', 'only_candidates', 'film')


def _shift():
  """Return the page on which the loop was chosen: `valid`, seed 0."""
  shifts = ('none', 'training', 'shear', *layout.GEOMETRIC)
  shifts += ('strong_noise', 'polarity_noise', 'stripes')
  evaluations = layout.shifted(shifts=shifts, episodes=600, split='valid')
  names = (*layout.TWINS, *_PARTS, 'film_shift', 'elbo_and_mixture')
  rows = variants.make_rows(names, evaluations)
  return layout.make_page(
    rows, 'udl', 'cluster_alone:accuracy', 'default:accuracy'
  )


def _placebos():
  """Return the page of what should not help: `default` under overrides."""
  other = '--config.episode.phi_from=other'
  sources = {
    'phi_of_another': [other],
    'flipped_steps': page.overrides(direction='flipped'),
    'noise': ['--config.episode.inner_data=noise'],
  }
  return layout.against_own(
    sources, ('none', 'training', 'shear', *layout.GEOMETRIC)
  )


def _other_classes():
  """Return the page whose unlabelled images are of other classes.

  They are in phase `inner` too, so that gates can learn what is of use then.
  """
  names = [f'{name}_others' for name in ('default', 'no_elbo', 'cluster_alone')]
  evaluations = layout.shifted(
    '--config.episode.unlabelled_classes=other',
    shifts=('none', 'training', 'shear', *layout.GEOMETRIC),
  )
  rows = variants.make_rows(names, evaluations)
  return layout.make_page(rows, 'udl', 'cluster_alone_others:accuracy')


def _real():
  """Return the page of networks of drawn characters on a set of real ones.

  All classes of `--target`, 5-way, clean episodes: what differs from training
  is in the images themselves.
  """
  fixed = ['--dataset={target}', '--config.data.shift=none']
  fixed += ['--config.episode.proportions=balanced']
  evaluations = page.merged(
    page.test(f'--shot={n}', *fixed, tag=f'{{target}}-{n}shot', split='all')
    for n in (1, 5)
  )
  scans = ['--config.data.augment=scans']
  upstream = {name: [page.upstream(name)] for name in ('vae', 'base')}
  base, inner = 'udl.py:base,{dataset}', 'udl.py:inner,{dataset}'
  rows = {
    'vae': Row('vae.py:{dataset}', ['--config.steps=3000']),
    'base': Row(base, [*upstream['vae'], *scans], evaluations),
    'default': Row(inner, [*upstream['base'], *scans], evaluations),
    'without_scans': Row(base, upstream['vae'], evaluations),
  }
  rows = {name: row._replace(seeds=3) for name, row in rows.items()}
  return layout.make_page(
    rows, 'udl-real', 'without_scans:accuracy', families=False
  )


PAGES = {
  'udl-shift': _shift(),
  'udl-placebos': _placebos(),
  'udl-other-classes': _other_classes(),
  'udl-real': _real(),
}
