"""The pages of `udl`: variants of the unsupervised inner loop.

All variants of a seed use the same `vae` and the same frozen phase `base`. Most
pages share runs too, so that nothing is trained twice. Phase `base` is trained
on the shifts `training`, phase `inner` also on `adaptation`; nothing is trained
on `shear` and `final`.
"""

from experiments import page
from experiments.page import Page
from experiments.page import Row

_LOSSES = ('elbo', 'geometry', 'byol', 'certainty')
_ALL = ('none', 'training', 'adaptation', 'shear', 'final')
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
_NO_VAE = {'elbo': 'none', 'ssl': 'none', 'gate': 'predictions'}
_SHIFT = {
  **{'elbo': 'shift', 'ssl': 'none', 'critic': 'none'},
  'inner_steps': 5,
}
_NO_STEPS = {'inner_steps': 0, 'elbo': 'none', 'ssl': 'none', 'critic': 'none'}
# Phase `inner`: what differs from `configs/udl.py:inner`.
_INNER = {
  'default': {},
  'no_vae': _NO_VAE,
  'cluster_alone': _NO_STEPS,
  'steps_alone': {'cluster': 0},
  'no_critic': {'critic': 'none'},
  'no_elbo': {'elbo': 'none'},
  'no_ssl': {'ssl': 'none'},
  'no_gate': {'gate': 'none'},
  'byol': {'ssl': 'byol'},
  'steps_1': {'inner_steps': 1},
  'steps_5': {'inner_steps': 5},
  # Film that is the same for all episodes.
  'constant_film': {**_NO_STEPS, 'cluster': 0, 'start': 'learned'},
  # Nothing is trained: gradient steps on the entropy at a fixed rate.
  'tent': {
    'elbo': 'none',
    'ssl': 'certainty',
    'critic': 'none',
    'gate': 'none',
    'cluster': 0,
    'inner_rates': 'fixed',
    'meta_grad': 'none',
  },
  # The shift of the unlabelled images by its ELBO, or without any vae by the
  # evidence of the classes; with nothing else, and beside the default.
  'shift': {'adapt': 'shift', **_SHIFT},
  'shift_mixture': {'adapt': 'shift', **_SHIFT, **_NO_VAE, 'ssl': 'mixture'},
  'film_shift': {'adapt': 'film+shift', 'elbo': 'shift', 'inner_steps': 5},
}
# K = 0 from scratch, for as many updates as both phases together.
_LONGER = '--config.steps=4800'
_BASE = {
  'longer_base': [_LONGER],
  # ... and on the shifts that otherwise only phase `inner` meets.
  'wider_base': [_LONGER, '--config.data.shift=phase2'],
  'no_emission': page.overrides(emit='none'),
  # Queries normalised by their own statistics, as a domain of their own.
  'batch_statistics': [
    *page.overrides(query_statistics='queries'),
    *(_LONGER, '--config.data.shift=phase2'),
  ],
  # Image tokens hold only features, or only the posterior.
  'no_conditioning': page.overrides(condition='none'),
  'no_trunk': page.overrides(trunk='()'),
}
# Joint training on both losses, and inner steps only at test time (TTT).
_JOINT = {
  'ttt': [
    *(_LONGER, '--config.data.shift=training'),
    *page.overrides(meta_grad='none', auxiliary_weight=1.0),
    *page.overrides(inner_rates='fixed', elbo='none', ssl='byol'),
    *page.overrides(critic='none', gate='none', cluster=0),
  ]
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
_GENERATED_FOR = {
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


def _rows(names, evaluations, seeds=1, settings=()):
  """Return the rows of a page: first `vae` and `base`, then the variants.

  Args:
    names: of the variants.
    evaluations: of each of them.
    seeds: int.
    settings: flags of every training except that of the vae.
  """
  settings = list(settings)
  vae = [*settings, page.upstream('vae')]
  rows = {
    'vae': Row('vae.py:{dataset}', ['--config.steps=3000']),
    'base': Row('udl.py:base,{dataset}', vae),
  }
  for name in names:
    if name in _INNER:
      phase = 'inner'
      flags = [
        *settings,
        page.upstream('base'),
        *page.overrides(**_INNER[name]),
      ]
    else:
      phase = 'base' if name in _BASE else 'joint'
      flags = [*vae, *(_BASE | _JOINT)[name]]
    rows[name] = Row(f'udl.py:{phase},{{dataset}}', flags, evaluations)
  return {name: row._replace(seeds=seeds) for name, row in rows.items()}


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
# Trained without steps, for as many updates as both phases together.
_WITHOUT_STEPS = ('longer_base', 'wider_base', 'batch_statistics')


def _main(folder, names, **options):
  rows = _rows(names, _shifted(), seeds=3, **options)
  others = (f'{name}:accuracy' for name in names)
  return _page(rows, folder, *others)


def _settings():
  """Return {name: page} of other settings, with one seed."""
  names = _TWINS
  two = ('none', 'shear')
  clusters = [
    '--config.learner.setting=clusters',
    *('--config.episode.unlabelled=12', '--config.episode.query=7'),
    '--config.data.shift=none',
  ]
  distractors = '--config.episode.distractors=5'
  none = ['--config.episode.unlabelled=0']
  unknown = _shifted(distractors, tag='distractors-', shifts=two)
  return {
    # Without any label.
    'udl-clusters': _page(
      _rows(names, _shifted(shifts=['none']), settings=clusters),
      'udl-clusters',
      'default:accuracy',
    ),
    # Five more classes among the unlabelled images, in training and test.
    'udl-distractors': _page(
      _rows(names, _shifted(shifts=two), settings=[distractors]),
      'udl-distractors',
      *('default:accuracy', 'cluster_alone:accuracy'),
    ),
    # The networks of the page `udl` meet them for the first time.
    'udl-new-distractors': _page(
      _rows(names, unknown),
      'udl',
      *('default:accuracy', 'cluster_alone:accuracy'),
    ),
    # No unlabelled images: the steps have only the support, a negative control.
    'udl-few-shot': _page(
      _rows(['default'], _shifted(shifts=two), settings=none), 'udl-few-shot'
    ),
  }


def _other_classes():
  """Return the page of unlabelled images that share only the shift."""
  shifts = ('none', 'training', 'adaptation', 'shear')
  other = [
    f'--config.episode.{name}_data=other_classes' for name in ('inner', 'cond')
  ]
  evaluations = (
    _shifted(shifts=shifts),
    _shifted(*other, tag='other_classes-', shifts=shifts),
  )
  rows = _rows(['default'], page.merged(evaluations), seeds=3)
  rows['default'] = rows['default']._replace(reference='default')
  return Page(
    rows,
    'udl',
    _GENERATED_FOR,
    both=True,
    columns=tuple(f'{shift}-dirichlet-test' for shift in shifts),
  )


def _shift():
  """Return the page of the shift's ELBO, by family; `valid`, seed 0."""
  shifts = ('none', 'training', 'shear', 'rotation', 'stretch')
  evaluations = _shifted(shifts=shifts, episodes=600, split='valid')
  names = ('cluster_alone', 'shift', 'shift_mixture', 'film_shift')
  return _page(_rows(names, evaluations), 'udl', 'cluster_alone:accuracy')


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
  return _page(_rows(('tent', 'ttt'), evaluations), 'udl')


def _generated_for():
  """Return the page that compares weights generated for other episodes."""
  shifts = ('none', 'training', 'shear')
  other = (
    _shifted(
      f'--config.episode.emit_from={source}', tag=f'{source}-', shifts=shifts
    )
    for source in ('mean', 'other')
  )
  rows = _rows(
    ['default'], page.merged([_shifted(shifts=shifts), *other]), seeds=3
  )
  rows['default'] = rows['default']._replace(reference='default')
  return Page(
    rows,
    'udl',
    _GENERATED_FOR,
    both=True,
    columns=tuple(f'{shift}-dirichlet-test' for shift in shifts),
  )


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
    'udl-others': _page(_rows(names, _shifted()), 'udl', *compared),
    'udl-hyperfast': _page(
      _rows(['default'], hyperfast), 'udl', scores=_ENSEMBLE
    ),
  }


def _ablations():
  """Return the page of ablations, on 600 episodes of `valid`, seed 0."""
  names = ('default', 'steps_alone', 'no_critic', 'no_elbo', 'no_ssl')
  names += ('no_gate', 'byol', 'steps_1', 'steps_5', 'constant_film', 'tent')
  names += ('ttt', 'no_emission', 'no_conditioning')
  evaluations = _shifted(shifts=_ALL[:-1], episodes=600, split='valid')
  compared = ('default:accuracy', 'default:accuracy_unadapted')
  return _page(_rows(names, evaluations), 'udl', *compared)


def _layer():
  """Return pages with norms over single images, the former default."""
  norm = page.overrides(norm='layer')
  names = ('default', 'longer_base', 'tent', 'constant_film')
  compared, folder = 'default:accuracy', 'udl-layer'
  return {
    'udl-layer': _main(folder, _TWINS, settings=norm),
    'udl-layer-others': _page(
      _rows(names, _shifted(), settings=norm), folder, compared
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
  return _page(_rows(['default'], evaluations, seeds=3), 'udl')


PAGES = {
  'udl': _main('udl', (*_TWINS, *_WITHOUT_STEPS)),
  'udl-other-classes': _other_classes(),
  'udl-rates': _rates(),
  'udl-shift': _shift(),
  'udl-balanced': _balanced(),
  **_others(),
  'udl-generated-for': _generated_for(),
  **_settings(),
  'udl-ablations': _ablations(),
  **_layer(),
  'mt3': _mt3(),
}
