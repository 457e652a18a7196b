"""The pages of `udl`: its variants compared, under shifts and other settings.

Most pages share runs, so that nothing is trained twice. Phase `base` is trained
on the shifts `training`, phase `inner` also on `adaptation`; nothing is trained
on `shear` and `final`.
"""

from experiments import page
from experiments.page import Row
from experiments.pages import udl_layout as layout
from experiments.pages import udl_shift
from experiments.pages import udl_variants as variants

# Trained without steps, for as many updates as both phases together.
_WITHOUT_STEPS = ('longer_base', 'wider_base', 'batch_statistics')


def _main(folder, names, shifts=layout.ALL, **options):
  rows = variants.make_rows(
    names, layout.shifted(shifts=shifts), seeds=3, **options
  )
  others = (f'{name}:accuracy' for name in names)
  return layout.make_page(rows, folder, *others)


def _settings():
  """Return {name: page} of other settings, with one seed."""
  names = layout.TWINS
  two = ('none', 'shear')
  clusters = [
    '--config.learner.setting=clusters',
    *page.overrides(**variants.FILM),
    *('--config.episode.unlabelled=12', '--config.episode.query=7'),
    '--config.data.shift=none',
  ]
  distractors = '--config.episode.distractors=5'
  none = ['--config.episode.unlabelled=0']
  few_shot = variants.make_rows(
    ['default'], layout.shifted(shifts=two), settings=none
  )
  unknown = layout.shifted(distractors, tag='distractors-', shifts=two)
  return {
    # Without any label.
    'udl-clusters': layout.make_page(
      variants.make_rows(
        names, layout.shifted(shifts=['none']), settings=clusters
      ),
      'udl-clusters',
      'default:accuracy',
    ),
    # Five more classes among the unlabelled images, in training and test.
    'udl-distractors': layout.make_page(
      variants.make_rows(
        names, layout.shifted(shifts=two), settings=[distractors]
      ),
      'udl-distractors',
      *('default:accuracy', 'cluster_alone:accuracy'),
    ),
    # The networks of the page `udl` meet them for the first time.
    'udl-new-distractors': layout.make_page(
      variants.make_rows(names, unknown),
      'udl',
      *('default:accuracy', 'cluster_alone:accuracy'),
    ),
    # No unlabelled images: the steps have only the support, a negative control.
    'udl-few-shot': layout.make_page(few_shot, 'udl-few-shot'),
  }


def _generated_for():
  """Return the page on which weights are generated from other supports."""
  generated = {
    source: [f'--config.episode.emit_from={source}']
    for source in ('mean', 'other')
  }
  return layout.against_own(generated, ('none', 'training', 'shear'))


def _rates():
  """Return the page on which the rates of TENT and TTT are chosen, `valid`."""
  evaluations = page.merged(
    layout.shifted(
      *page.overrides(inner_rate=rate),
      tag=f'rate{rate}-',
      shifts=('none', 'shear'),
      episodes=600,
      split='valid',
    )
    for rate in (0.03, 0.1, 0.3, 1.0, 3.0)
  )
  return layout.make_page(
    variants.make_rows(('tent', 'ttt'), evaluations), 'udl'
  )


def _others():
  """Return pages of other ways to adapt and of HyperFast's options, seed 0."""
  names = ('default', 'tent', 'ttt', 'constant_film', 'no_emission')
  names += ('no_conditioning', 'no_trunk')
  compared = ('default:accuracy', 'default:accuracy_unadapted')
  hyperfast = layout.shifted(
    *page.overrides(ensemble=8, finetune_steps=50),
    tag='hyperfast-',
    shifts=('none', 'training'),
  )
  return {
    'udl-others': layout.make_page(
      variants.make_rows(names, layout.shifted()), 'udl', *compared
    ),
    'udl-hyperfast': layout.make_page(
      variants.make_rows(['default'], hyperfast), 'udl', scores=layout.ENSEMBLE
    ),
  }


def _ablations():
  """Return the page of ablations, on 600 episodes of `valid`, seed 0."""
  names = ('default', 'steps_alone', 'no_elbo', 'no_gate', 'steps_2', 'steps_4')
  names += ('film', 'film_no_critic', 'film_no_elbo', 'film_no_ssl')
  names += ('film_byol', 'film_byol_5', 'constant_film', 'tent', 'ttt')
  names += ('no_emission', 'no_conditioning')
  evaluations = layout.shifted(
    shifts=layout.ALL[:-1], episodes=600, split='valid'
  )
  compared = ('default:accuracy', 'default:accuracy_unadapted')
  return layout.make_page(
    variants.make_rows(names, evaluations), 'udl', *compared
  )


def _layer():
  """Return pages with norms over single images, the former default."""
  norm = page.overrides(norm='layer')
  names = ('default', 'longer_base', 'tent', 'constant_film')
  compared, folder = 'default:accuracy', 'udl-layer'
  return {
    'udl-layer': _main(folder, layout.TWINS, settings=norm),
    'udl-layer-others': layout.make_page(
      variants.make_rows(names, layout.shifted(), settings=norm),
      folder,
      compared,
    ),
  }


def _mt3():
  """Return the page of MT3 against joint training on corrupted images."""
  shifts = ('none', 'color_training', 'color_adaptation', 'color_heldout')
  evaluations = page.merged(
    page.test(f'--config.data.shift={shift}', tag=f'{shift}-balanced')
    for shift in shifts
  )
  rows = {
    name: Row(f'mt3.py:{word}{{dataset}}', [], evaluations)
    for name, word in (('mt3', ''), ('joint', 'joint,'))
  }
  return layout.make_page(rows, 'mt3', 'joint:accuracy_unadapted')


def _balanced():
  evaluations = layout.shifted(proportions='balanced')
  return layout.make_page(
    variants.make_rows(['default'], evaluations, seeds=3), 'udl'
  )


PAGES = {
  **udl_shift.PAGES,
  'udl': _main(
    'udl',
    (*layout.TWINS, *_WITHOUT_STEPS, 'from_identity', 'film'),
    (*layout.ALL, *layout.GEOMETRIC),
  ),
  'udl-rates': _rates(),
  'udl-balanced': _balanced(),
  **_others(),
  'udl-generated-for': _generated_for(),
  **_settings(),
  'udl-ablations': _ablations(),
  **_layer(),
  'mt3': _mt3(),
}
