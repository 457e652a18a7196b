"""Makes the outer optimizer and its learning rate schedule from a config."""

import optax

from hyperudl import core
from hyperudl.core.config import ConfigDict


def make_schedule(config: ConfigDict, steps: int) -> optax.Schedule:
  """Return the learning rate as a function of the step.

  Args:
    config: the section `optimizer`, see `core.config.OptimizerConfig`.
    steps: length of the run, more than the warm-up.
  """
  peak = config.learning_rate
  if config.schedule == 'constant':
    main = optax.constant_schedule(peak)
  elif config.schedule == 'cosine':
    main = optax.cosine_decay_schedule(
      peak, steps - config.warmup_steps, config.end_factor
    )
  elif config.schedule == 'milestones':
    factors: dict[int, float] = {}
    for share in config.milestones:  # in a short run some may coincide
      end = round(share * steps) - config.warmup_steps
      factors[end] = factors.get(end, 1.0) * config.decay_rate
    main = optax.piecewise_constant_schedule(peak, factors)
  else:
    main = optax.exponential_decay(peak, config.decay_steps, config.decay_rate)
  warmup = config.warmup_steps
  if not warmup:
    return main
  # Not 0 in the first step, where optax's warm-up schedules start.
  ramp = optax.linear_schedule(peak / (warmup + 1), peak, warmup)
  return optax.join_schedules([ramp, main], [warmup])


def make_optimizer(
  config: ConfigDict, steps: int
) -> optax.GradientTransformation:
  """Return the outer optimizer: clipping, then SGD, Adam or AdamW.

  Args:
    config: the section `optimizer`, see `core.config.OptimizerConfig`.
    steps: length of the run.

  Raises:
    core.BadInput: for a field that the named optimizer does not have.
  """
  for field, name in (('momentum', 'sgd'), ('weight_decay', 'adamw')):
    if config[field] and config.name != name:
      raise core.BadInput(
        f'config.optimizer.{field} = {config[field]} has no effect with '
        f'{config.name!r}: set it to 0, or config.optimizer.name={name}'
      )
  schedule = make_schedule(config, steps)
  if config.name == 'sgd':
    optimizer = optax.sgd(schedule, momentum=config.momentum or None)
  elif config.name == 'adam':
    optimizer = optax.adam(schedule)
  else:
    optimizer = optax.adamw(schedule, weight_decay=config.weight_decay)
  if not config.clip:
    return optimizer
  by_norm = config.clip_by == 'norm'
  clip = optax.clip_by_global_norm if by_norm else optax.clip
  return optax.chain(clip(config.clip), optimizer)
