"""The trainings of the pages of `udl`: its variants by name, as rows.

All variants of a seed use the same `vae` and the same frozen phase `base`.
"""

from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence

from experiments import page
from experiments.page import Row

OTHERS = '_others'  # ends variants whose unlabelled images are of other classes
# The former default: film, by the ELBO of features, geometry and a critic.
FILM = {
  **{'adapt': 'film', 'elbo': 'features', 'ssl': 'geometry'},
  **{'critic': 'predictions', 'blend': False},
  **{'inner_steps': 3, 'inner_rate': 0.3},
}
_NO_STEPS = {
  **{'adapt': 'film', 'elbo': 'none', 'ssl': 'none', 'critic': 'none'},
  **{'blend': False, 'inner_steps': 0, 'inner_rate': 0.3},
}
# The evidence of the classes in place of the ELBO, and so of noise.
_MIXTURE = {'elbo': 'none', 'ssl': 'mixture', 'blend': False}
# Phase `inner`: what differs from `configs/udl.py:inner`.
_INNER = {
  'default': {},
  'no_elbo': _MIXTURE,
  'no_vae': {**_MIXTURE, 'gate': 'predictions'},
  'cluster_alone': _NO_STEPS,
  'steps_alone': {'cluster': 0},
  'no_blend': {'blend': False},
  # phi starts at the identity, or is the best candidate without any step.
  'from_identity': {'shift_start': 'identity'},
  'only_candidates': {'inner_steps': 0},
  'elbo_and_mixture': {'ssl': 'mixture'},
  'film_shift': {**FILM, 'adapt': 'film+shift', 'elbo': 'shift', 'blend': True},
  'no_gate': {'gate': 'none'},
  'steps_2': {'inner_steps': 2},
  'steps_4': {'inner_steps': 4},
  # Steps on film, and film that is the same for all episodes.
  'film': FILM,
  'film_no_critic': {**FILM, 'critic': 'none'},
  'film_no_elbo': {**FILM, 'elbo': 'none'},
  'film_no_ssl': {**FILM, 'ssl': 'none'},
  'film_byol': {**FILM, 'ssl': 'byol'},
  # BYOL, no gate and five steps, each of them better by itself.
  'film_byol_5': {**FILM, 'ssl': 'byol', 'gate': 'none', 'inner_steps': 5},
  'constant_film': {**_NO_STEPS, 'cluster': 0, 'start': 'learned'},
  # Nothing is trained: gradient steps on the entropy at a fixed rate.
  'tent': {
    **{**FILM, 'elbo': 'none', 'ssl': 'certainty', 'critic': 'none'},
    **{'gate': 'none', 'cluster': 0},
    **{'inner_rates': 'fixed', 'meta_grad': 'none'},
  },
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
    *page.overrides(inner_rates='fixed', adapt='film', elbo='none'),
    *page.overrides(ssl='byol', critic='none', gate='none', cluster=0),
    *page.overrides(blend=False, inner_steps=3, inner_rate=0.3),
  ]
}


def make_rows(
  names: Iterable[str],
  evaluations: Mapping[str, Sequence[str]],
  seeds: int = 1,
  settings: Iterable[str] = (),
) -> dict[str, Row]:
  """Return the rows of a page: first `vae` and `base`, then the variants.

  Args:
    names: of the variants, those of phase `inner` also with `_others`.
    evaluations: of each of them.
    seeds: number of training seeds.
    settings: flags of every training except that of the vae.
  """
  settings = list(settings)
  vae = [*settings, page.upstream('vae')]
  rows = {
    'vae': Row('vae.py:{dataset}', ['--config.steps=3000']),
    'base': Row('udl.py:base,{dataset}', vae),
  }
  for name in names:
    known = name.removesuffix(OTHERS)
    if known in _INNER:
      phase = 'inner'
      flags = [
        *settings,
        page.upstream('base'),
        *page.overrides(**_INNER[known]),
      ]
      if name != known:
        flags.append('--config.episode.unlabelled_classes=other')
    else:
      phase = 'base' if name in _BASE else 'joint'
      flags = [*vae, *(_BASE | _JOINT)[name]]
    rows[name] = Row(f'udl.py:{phase},{{dataset}}', flags, evaluations)
  return {name: row._replace(seeds=seeds) for name, row in rows.items()}
