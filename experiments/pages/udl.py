"""The pages of `udl`: its variants compared, under shifts and other settings.

Most pages share runs, so that nothing is trained twice. Phase `base` is trained
on the shifts `training`, phase `inner` also on `adaptation`; nothing is trained
on `shear` and `final`.
"""

from experiments import page
from experiments.page import Page
from experiments.page import Row
from experiments.pages import udl_variants as variants

_LOSSES = ('elbo', 'geometry', 'byol', 'mixture', 'certainty')
_ALL = ('none', 'training', 'adaptation', 'shear', 'final')
# Of the adaptation families, those that phi describes.
_GEOMETRIC = ('rotation', 'stretch')
# Without steps: clustering that is learned, and soft k-means that is not.
_CLUSTER_ONLY = (
  'accuracy - cluster_alone:accuracy',
  *(f'accuracy - accuracy_kmeans_{scale}' for scale in ('0.5', '1', '2')),
)
_DETAILS = {
  'wins': 'episodes that gain, %',
  'losses': 'that lose, %',
  'accuracy_unadapted': 'step 0, %',
  **{f'accuracy_step_{k}': f'step {k}, %' for k in range(1, 6)},
  'accuracy': 'end, %',
  'inner_update_norm': 'length of all steps',
  **{f'weight_{name}': f'weight of {name}' for name in _LOSSES},
}
_ADAPTED = {
  'accuracy_unadapted': 'unadapted, %',
  'accuracy': 'adapted, %',
  'accuracy - accuracy_unadapted': 'gain, %',
  'accuracy - accuracy_placebo': 'over noise control, %',
  'ari': 'ARI, %',
  'ari - ari_unadapted': 'gain in ARI, %',
  **{
    f'accuracy - accuracy_kmeans_{kind}': f'over k-means {kind}, %'
    # Scales of soft k-means; without any label, the inputs of plain k-means.
    for kind in ('0.5', '1', '2', 'pixels', 'posterior', 'features')
  },
}
_ENSEMBLE = {
  'accuracy_ensemble - accuracy': 'ensemble over adapted, %',
  'accuracy_finetuned - accuracy_unadapted': 'fine-tuned over unadapted, %',
}
_AGAINST_OWN = {
  'accuracy_unadapted': 'unadapted, %',
  'accuracy_unadapted - default:accuracy_unadapted': 'difference, %',
  'accuracy': 'adapted, %',
  'accuracy - default:accuracy': 'difference adapted, %',
}


def _shifted(*flags, tag='', shifts=_ALL, proportions='dirichlet', **options):
  """Return evaluations named `[TAG-]SHIFT-PROPORTIONS-SPLIT`."""
  return page.merged(
    page.test(
      f'--config.data.shift={shift}',
      f'--config.episode.proportions={proportions}',
      *flags,
      tag=f'{tag}{shift}-{proportions}',
      **options,
    )
    for shift in shifts
  )


def _over(*scores):
  """Return the titles of differences to a variant, or to a number of it."""
  return {
    f'accuracy - {score}': f'over {score.removesuffix(":accuracy")}, %'
    for score in scores
  }


def _page(rows, folder, *against, **layout):
  """Return a page of variants, compared with others of the same folder."""
  layout = {'families': True, 'by_result': True} | layout
  scores = _ADAPTED | layout.pop('scores', {}) | _over(*against)
  layout['smallest'] = {'over the best cluster-only, %': _CLUSTER_ONLY}
  return Page(rows, folder, scores, details=_DETAILS, **layout)


# Whatever speaks of the ELBO has the twin that lacks only the ELBO beside it.
_TWINS = ('default', 'no_elbo', 'no_vae', 'cluster_alone')
# phi without one of its parts, and the former default.
_PARTS = ('no_blend', 'from_identity', 'only_candidates', 'film')
# Trained without steps, for as many updates as both phases together.
_WITHOUT_STEPS = ('longer_base', 'wider_base', 'batch_statistics')


def _main(folder, names, shifts=_ALL, **options):
  rows = variants.make_rows(names, _shifted(shifts=shifts), seeds=3, **options)
  others = (f'{name}:accuracy' for name in names)
  return _page(rows, folder, *others)


def _settings():
  """Return {name: page} of other settings, with one seed."""
  names = _TWINS
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
    ['default'], _shifted(shifts=two), settings=none
  )
  unknown = _shifted(distractors, tag='distractors-', shifts=two)
  return {
    # Without any label.
    'udl-clusters': _page(
      variants.make_rows(names, _shifted(shifts=['none']), settings=clusters),
      'udl-clusters',
      'default:accuracy',
    ),
    # Five more classes among the unlabelled images, in training and test.
    'udl-distractors': _page(
      variants.make_rows(names, _shifted(shifts=two), settings=[distractors]),
      'udl-distractors',
      *('default:accuracy', 'cluster_alone:accuracy'),
    ),
    # The networks of the page `udl` meet them for the first time.
    'udl-new-distractors': _page(
      variants.make_rows(names, unknown),
      'udl',
      *('default:accuracy', 'cluster_alone:accuracy'),
    ),
    # No unlabelled images: the steps have only the support, a negative control.
    'udl-few-shot': _page(few_shot, 'udl-few-shot'),
  }


def _against_own(sources, shifts):
  """Return a page of `default` under overrides, compared with none of them.

  Args:
    sources: {tag: flags}.
    shifts: names of shifts.
  """
  evaluations = [_shifted(shifts=shifts)]
  for tag, flags in sources.items():
    evaluations.append(_shifted(*flags, tag=f'{tag}-', shifts=shifts))
  rows = variants.make_rows(['default'], page.merged(evaluations), seeds=3)
  rows['default'] = rows['default']._replace(reference='default')
  columns = tuple(f'{shift}-dirichlet-test' for shift in shifts)
  return Page(rows, 'udl', _AGAINST_OWN, both=True, columns=columns)


def _generated_for():
  """Return the page on which weights are generated from other supports."""
  generated = {
    source: [f'--config.episode.emit_from={source}']
    for source in ('mean', 'other')
  }
  return _against_own(generated, ('none', 'training', 'shear'))


def _shift():
  """Return the page on which the loop was chosen: `valid`, seed 0."""
  shifts = ('none', 'training', 'shear', *_GEOMETRIC)
  shifts += ('strong_noise', 'polarity_noise', 'stripes')
  evaluations = _shifted(shifts=shifts, episodes=600, split='valid')
  names = (*_TWINS, *_PARTS, 'film_shift', 'elbo_and_mixture')
  rows = variants.make_rows(names, evaluations)
  return _page(rows, 'udl', 'cluster_alone:accuracy', 'default:accuracy')


def _placebos():
  """Return the page of what should not help: `default` under overrides."""
  other = '--config.episode.phi_from=other'
  sources = {
    'phi_of_another': [other],
    'flipped_steps': page.overrides(direction='flipped'),
    'noise': ['--config.episode.inner_data=noise'],
  }
  return _against_own(sources, ('none', 'training', 'shear', *_GEOMETRIC))


def _other_classes():
  """Return the page whose unlabelled images are of other classes.

  They are in phase `inner` too, so that gates can learn what is of use then.
  """
  names = [f'{name}_others' for name in ('default', 'no_elbo', 'cluster_alone')]
  evaluations = _shifted(
    '--config.episode.unlabelled_classes=other',
    shifts=('none', 'training', 'shear', *_GEOMETRIC),
  )
  rows = variants.make_rows(names, evaluations)
  return _page(rows, 'udl', 'cluster_alone_others:accuracy')


def _rates():
  """Return the page on which the rates of TENT and TTT are chosen, `valid`."""
  evaluations = page.merged(
    _shifted(
      *page.overrides(inner_rate=rate),
      tag=f'rate{rate}-',
      shifts=('none', 'shear'),
      episodes=600,
      split='valid',
    )
    for rate in (0.03, 0.1, 0.3, 1.0, 3.0)
  )
  return _page(variants.make_rows(('tent', 'ttt'), evaluations), 'udl')


def _others():
  """Return pages of other ways to adapt and of HyperFast's options, seed 0."""
  names = ('default', 'tent', 'ttt', 'constant_film', 'no_emission')
  names += ('no_conditioning', 'no_trunk')
  compared = ('default:accuracy', 'default:accuracy_unadapted')
  hyperfast = _shifted(
    *page.overrides(ensemble=8, finetune_steps=50),
    tag='hyperfast-',
    shifts=('none', 'training'),
  )
  return {
    'udl-others': _page(
      variants.make_rows(names, _shifted()), 'udl', *compared
    ),
    'udl-hyperfast': _page(
      variants.make_rows(['default'], hyperfast), 'udl', scores=_ENSEMBLE
    ),
  }


def _ablations():
  """Return the page of ablations, on 600 episodes of `valid`, seed 0."""
  names = ('default', 'steps_alone', 'no_elbo', 'no_gate', 'steps_1', 'steps_5')
  names += ('film', 'film_no_critic', 'film_no_elbo', 'film_no_ssl')
  names += ('film_byol', 'film_byol_5', 'constant_film', 'tent', 'ttt')
  names += ('no_emission', 'no_conditioning')
  evaluations = _shifted(shifts=_ALL[:-1], episodes=600, split='valid')
  compared = ('default:accuracy', 'default:accuracy_unadapted')
  return _page(variants.make_rows(names, evaluations), 'udl', *compared)


def _layer():
  """Return pages with norms over single images, the former default."""
  norm = page.overrides(norm='layer')
  names = ('default', 'longer_base', 'tent', 'constant_film')
  compared, folder = 'default:accuracy', 'udl-layer'
  return {
    'udl-layer': _main(folder, _TWINS, settings=norm),
    'udl-layer-others': _page(
      variants.make_rows(names, _shifted(), settings=norm), folder, compared
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
  return _page(rows, 'mt3', 'joint:accuracy_unadapted')


def _balanced():
  evaluations = _shifted(proportions='balanced')
  return _page(variants.make_rows(['default'], evaluations, seeds=3), 'udl')


PAGES = {
  'udl': _main(
    'udl',
    (*_TWINS, *_WITHOUT_STEPS, 'from_identity', 'film'),
    (*_ALL, *_GEOMETRIC),
  ),
  'udl-rates': _rates(),
  'udl-shift': _shift(),
  'udl-balanced': _balanced(),
  **_others(),
  'udl-generated-for': _generated_for(),
  'udl-placebos': _placebos(),
  'udl-other-classes': _other_classes(),
  **_settings(),
  'udl-ablations': _ablations(),
  **_layer(),
  'mt3': _mt3(),
}
