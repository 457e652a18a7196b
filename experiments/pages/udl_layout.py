"""The layout of the pages of `udl`: their evaluations, scores and tables."""

from experiments import page
from experiments.page import Page
from experiments.pages import udl_variants as variants

_LOSSES = ('elbo', 'geometry', 'byol', 'mixture', 'certainty')
ALL = ('none', 'training', 'adaptation', 'shear', 'final')
# Whatever speaks of the ELBO has the twin that lacks only the ELBO beside it.
TWINS = ('default', 'no_elbo', 'no_vae', 'cluster_alone')
# Of the adaptation families, those that phi describes.
GEOMETRIC = ('rotation', 'stretch')
# Without steps: clustering that is learned, and soft k-means that is not.
_CLUSTER_ONLY = (
  'accuracy - cluster_alone:accuracy',
  *(f'accuracy - accuracy_kmeans_{scale}' for scale in ('0.5', '1', '2')),
)
_DETAILS = {
  'wins': 'episodes that gain, %',
  'losses': 'that lose, %',
  'accuracy_unadapted': 'step 0, %',
  **{f'accuracy_step_{k}': f'step {k}, %' for k in (1, 2, 3, 4, 8)},
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
ENSEMBLE = {
  'accuracy_ensemble - accuracy': 'ensemble over adapted, %',
  'accuracy_finetuned - accuracy_unadapted': 'fine-tuned over unadapted, %',
}
_AGAINST_OWN = {
  'accuracy_unadapted': 'unadapted, %',
  'accuracy_unadapted - default:accuracy_unadapted': 'difference, %',
  'accuracy': 'adapted, %',
  'accuracy - default:accuracy': 'difference adapted, %',
}


def shifted(*flags, tag='', shifts=ALL, proportions='dirichlet', **options):
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


def make_page(rows, folder, *against, **layout):
  """Return a page of variants, compared with others of the same folder."""
  layout = {'families': True, 'by_result': True} | layout
  scores = _ADAPTED | layout.pop('scores', {}) | _over(*against)
  layout['smallest'] = {'over the best cluster-only, %': _CLUSTER_ONLY}
  return Page(rows, folder, scores, details=_DETAILS, **layout)


def against_own(sources, shifts):
  """Return a page of `default` under overrides, compared with none of them.

  Args:
    sources: {tag: flags}.
    shifts: names of shifts.
  """
  evaluations = [shifted(shifts=shifts)]
  for tag, flags in sources.items():
    evaluations.append(shifted(*flags, tag=f'{tag}-', shifts=shifts))
  rows = variants.make_rows(['default'], page.merged(evaluations), seeds=3)
  rows['default'] = rows['default']._replace(reference='default')
  columns = tuple(f'{shift}-dirichlet-test' for shift in shifts)
  return Page(rows, 'udl', _AGAINST_OWN, both=True, columns=columns)
