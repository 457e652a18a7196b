"""The outer optimizer and its learning rate, from a config's `optimizer`."""

import optax

from hyperudl import core


def make_schedule(settings, steps):
  """Learning rate as a function of the step.

  Args:
    settings: the config's `optimizer`.
    steps: length of the run; warm-up is clipped to it.

  Returns:
    An optax schedule.
  """
  peak = settings.learning_rate
  if settings.schedule == 'constant':
    main = optax.constant_schedule(peak)
  elif settings.schedule == 'cosine':
    main = optax.cosine_decay_schedule(
      peak, max(1, steps - settings.warmup_steps), settings.end_factor
    )
  else:
    main = optax.exponential_decay(
      peak, settings.decay_steps, settings.decay_rate
    )
  warmup = min(settings.warmup_steps, steps)
  if not warmup:
    return main
  ramp = optax.linear_schedule(peak / (warmup + 1), peak, warmup)
  return optax.join_schedules([ramp, main], [warmup])


def make_optimizer(settings, steps):
  """The outer optimizer: clipping, then SGD, Adam or AdamW.

  Args:
    settings: the config's `optimizer` (name, learning_rate, schedule,
      warmup_steps, end_factor, decay_steps, decay_rate, clip, momentum,
      weight_decay).
    steps: length of the run.

  Raises:
    core.BadInput: for a setting that the named optimizer does not have.
  """
  for field, name in (('momentum', 'sgd'), ('weight_decay', 'adamw')):
    if settings[field] and settings.name != name:
      raise core.BadInput(
        f'config.optimizer.{field} = {settings[field]} has no effect with '
        f'{settings.name!r}: set it to 0, or config.optimizer.name={name}'
      )
  schedule = make_schedule(settings, steps)
  if settings.name == 'sgd':
    momentum = settings.momentum if settings.momentum else None
    main = optax.sgd(schedule, momentum=momentum)
  elif settings.name == 'adam':
    main = optax.adam(schedule)
  else:
    main = optax.adamw(schedule, weight_decay=settings.weight_decay)
  if not settings.clip:
    return main
  return optax.chain(optax.clip_by_global_norm(settings.clip), main)
