"""The pages of language-guided learners: networks generated from a question.

Results are named SETTING-LEVEL-test; the table has a line for each setting.
`Kshot` is measured after 10 inner steps on K x way labelled images of any
classes: `hypernet` starts from its initial latent, which is the same for all
tasks, `hyperldm` from the latent that it samples for the question.
"""

from experiments import page
from experiments.page import Page
from experiments.page import Row

# How well weights and questions match: `learners/hyperclip.py`.
_GUIDED = {
  'retrieval': 'retrieval, %',
  'retrieval_chance': 'chance, %',
  'gradient_cosine': 'cosine of guidance and task gradient',
  'likeness_start': 'similarity, start',
  'likeness': 'similarity, guided',
}
_FILM = {
  'accuracy': 'accuracy, %',
  'gain_step': 'over unadapted, %',
  'gain_data': 'over that of noise, %',
  'accuracy_unadapted': 'unadapted, %',
  'accuracy_labelled': 'labelled, %',
}


def _asked(*flags, tag='', levels=('wording', 'semantic')):
  """Return evaluations on new wordings and, as `semantic`, new questions."""
  return page.merged(
    page.test(f'--config.language.level={level}', *flags, tag=f'{tag}{level}')
    for level in levels
  )


def _wording(*flags, tag):
  return _asked(*flags, tag=tag, levels=('wording',))


def _shots(*flags):
  """Return evaluations by the number of labelled images."""
  return page.merged(
    _wording(f'--config.episode.shot={shot}', *flags, tag=f'{shot}shot-')
    for shot in (1, 2, 4, 8)
  )


def _hypernets():
  """Return the rows of the hypernetwork of a latent, and of its baselines."""
  encoder, config = page.upstream('contrastive'), 'hypernet.py:{dataset}'
  rows = {
    kind: Row(
      config,
      [encoder, *page.overrides(kind=kind, inner_steps=0)],
      _asked(),
      reference='' if kind == 'multitask' else 'multitask',
    )
    for kind in ('multitask', 'conditional', 'film')
  }
  steps = (
    _wording(*page.overrides(inner_steps=count), tag=f'steps{count}-')
    for count in (0, 100)
  )
  evaluations = page.merged([_asked(), *steps, _shots()])
  rows['hypernet'] = Row(config, [encoder], evaluations, reference='multitask')
  return rows


def _rows():
  """Return all rows; the reference is `multitask`, which reads no language."""
  contrastive = {
    **_asked('--config.language.answers=bare'),
    **_asked('--config.language.answers=full', tag='full-'),
  }
  rows = {
    'contrastive': Row('contrastive.py:{dataset}', [], contrastive),
    **_hypernets(),
  }
  net, hvae = page.upstream('hypernet'), page.upstream('hvae')
  on_hvae = [net, hvae, *page.overrides(space='hvae')]

  def add(name, config, flags, evaluations):
    config = f'{config}.py:{{dataset}}'
    rows[name] = Row(config, flags, evaluations, reference='multitask')

  add('hvae', 'hvae', [net], _asked())
  single = _asked('--config.episode.tasks=0')
  together = _asked('--config.episode.tasks=12', tag='retrieval-')
  add('hyperclip', 'hyperclip', [net], single | together)
  add('hyperclip-hvae', 'hyperclip', on_hvae, single)
  gammas = page.merged(
    _wording(*page.overrides(gamma=gamma), tag=f'gamma{gamma}-')
    for gamma in ('0', '1.5', '4', '7.5')
  )
  finetuned = _shots(*page.overrides(finetune_steps=10))
  add('hyperldm', 'hyperldm', [net], _asked() | gammas | finetuned)
  add('hyperldm-hvae', 'hyperldm', on_hvae, _asked())
  return {name: row._replace(seeds=3) for name, row in rows.items()}


# The retired learner `hyperldm_film` sampled the film of `udl`'s CNN from the
# posterior of the images; its records can still be printed.
_SHIFTED = {
  f'{tag}{shift}-test': ()
  for tag in ('', 'gamma0-', 'gamma1.5-', 'samples8-')
  for shift in ('none', 'training', 'heldout')
}

PAGES = {
  'guidance': Page(
    _rows(),
    scores=_GUIDED,
    scored='retrieval',
    columns=('wording-test', 'semantic-test'),
  ),
  'film': Page(
    {
      name: Row('', evaluations=_SHIFTED)
      for name in ('steps', 'amortised', 'diffusion', 'diffusion-short')
    },
    scores=_FILM,
    retired=True,
  ),
}
