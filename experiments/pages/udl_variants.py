"""The trainings of the pages of `udl`: its variants by name, as rows.

All variants of a seed use the same `vae` and the same frozen phase `base`.
"""

from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence

from experiments import page
from experiments.page import Row

_NO_VAE = {'elbo': 'none', 'ssl': 'none', 'gate': 'predictions'}
_SHIFT = {
  **{'adapt': 'shift', 'elbo': 'shift', 'ssl': 'none', 'critic': 'none'},
  'blend': True,
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
  # The shift of the unlabelled images by its ELBO; without what noise adds to
  # it; from the identity, and only as the best candidate.
  'shift': _SHIFT,
  'no_blend': {**_SHIFT, 'blend': False},
  'from_identity': {
    **_SHIFT,
    'shift_start': 'identity',
    'inner_steps': 6,
    'inner_rate': 0.9,
  },
  'only_candidates': {**_SHIFT, 'inner_steps': 0},
  # ... by the evidence of the classes, without any vae.
  'mixture': {**_SHIFT, **_NO_VAE, 'ssl': 'mixture', 'blend': False},
  'film_shift': {'adapt': 'film+shift', 'elbo': 'shift', 'blend': True},
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


def make_rows(
  names: Iterable[str],
  evaluations: Mapping[str, Sequence[str]],
  seeds: int = 1,
  settings: Iterable[str] = (),
) -> dict[str, Row]:
  """Return the rows of a page: first `vae` and `base`, then the variants.

  Args:
    names: of the variants.
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
