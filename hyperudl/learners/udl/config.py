"""The static choices of `udl`, and which of them go together."""

from typing import NamedTuple

from hyperudl.learners.udl import fast_weights
from hyperudl.learners.udl import hypernetwork
from hyperudl.learners.udl import inner_losses
from hyperudl.learners.udl import steps
from hyperudl.ops import cluster_metrics

SETTINGS = ('classes', 'clusters')
PHASES = ('base', 'inner', 'joint')
NORMS = ('layer', 'group', 'batch', 'domain')


class Extras(NamedTuple):
  """What an evaluation measures besides; see `learners.udl.make`."""

  single: bool = False
  ensemble: int = 0
  finetune_steps: int = 0
  finetune_rate: float = 0.0


class Settings(NamedTuple):
  """See `learners.udl.make`."""

  phase: str
  setting: str
  writer: hypernetwork.Writer
  inner: inner_losses.Options
  cluster: int
  start: str
  multi_step: int
  unadapted_weight: float
  auxiliary_weight: float
  extras: Extras


def check_writer(writer, adapt):
  """Raises ValueError for a network that cannot be written."""
  width, heads = writer.settings['width'], writer.settings['heads']
  norm = writer.cnn.norm
  if width < 1 or width % heads:
    raise ValueError(
      'width must be >= 1 and a multiple of heads, not '
      f'width={width}, heads={heads}'
    )
  if norm not in NORMS:
    raise ValueError(f'norm must be one of {NORMS}, not {norm!r}')
  if writer.condition not in hypernetwork.CONDITIONS:
    raise ValueError(
      f'condition must be one of {hypernetwork.CONDITIONS}, not '
      f'{writer.condition!r}'
    )
  idle = {'tokens', 'hyper', 'encoder'} & set(fast_weights.parse(adapt))
  if idle and not writer.emit:
    raise ValueError(f"emit='none' has no {idle.pop()!r} to adapt")
  if 'encoder' in idle and writer.condition != 'posterior':
    raise ValueError(
      f'condition={writer.condition!r} reads no posterior, so that '
      "adapt='encoder' would do nothing: set condition='posterior'"
    )


def check(s):
  """Raises ValueError for choices that are unknown or do not go together."""
  if s.phase not in PHASES or s.setting not in SETTINGS:
    raise ValueError(
      f'phase must be one of {PHASES} and setting of {SETTINGS}, not '
      f'{s.phase!r} and {s.setting!r}'
    )
  if not 0 <= s.unadapted_weight <= 1 or s.auxiliary_weight < 0:
    raise ValueError(
      'unadapted_weight must be in [0, 1] and auxiliary_weight >= 0, not '
      f'{s.unadapted_weight} and {s.auxiliary_weight}'
    )
  if s.cluster < 0 or s.multi_step < 0:
    raise ValueError(
      f'cluster and multi_step must be >= 0, not {s.cluster} and {s.multi_step}'
    )
  inner_losses.check(s.inner)
  chosen = s.start == 'chosen' and not s.inner.steps
  if s.start not in steps.STARTS or chosen:
    raise ValueError(
      f'start must be one of {steps.STARTS}, and with inner_steps=0 not '
      f"'chosen', for there is no loss then; got {s.start!r}"
    )
  _check_extras(s)


def _check_extras(s):
  extras = s.extras
  if extras.ensemble < 0 or extras.finetune_steps < 0:
    raise ValueError(
      'ensemble and finetune_steps must be >= 0, not '
      f'{extras.ensemble} and {extras.finetune_steps}'
    )
  if extras.finetune_rate <= 0:
    raise ValueError(f'finetune_rate must be > 0, not {extras.finetune_rate}')
  if s.setting == 'clusters':
    cluster_metrics.permutations(s.writer.way)
    if extras.single or extras.ensemble or extras.finetune_steps:
      raise ValueError(
        'single=True answers query by query, ensembles and fine-tuning need '
        "names, and setting='clusters' has clusters without any: set "
        'single=False, ensemble=0 and finetune_steps=0'
      )
