"""Declares hyperparameters as dataclass fields with ranges, and checks values.

A frozen dataclass states each hyperparameter once: its name, type, default,
and range or choices. `Literal` types list choices; `field` adds a range.
"""

from collections.abc import Mapping
import dataclasses
import functools
import math
from typing import Any
from typing import Literal
from typing import get_args
from typing import get_origin
from typing import get_type_hints

from hyperudl.core.errors import BadInput

# Name of a bound -> whether a value obeys it, and how a message puts it.
BOUNDS = {
  'above': (lambda value, bound: value > bound, 'must be above'),
  'below': (lambda value, bound: value < bound, 'must be below'),
  'at_least': (lambda value, bound: value >= bound, 'is below its minimum'),
  'at_most': (lambda value, bound: value <= bound, 'is above its maximum'),
}
OF_EPISODE = ('way', 'varies')  # fields that the episode of a run gives


def field(default: Any, **bounds: float | str) -> Any:
  """Return a dataclass field with a default and a range.

  Args:
    default: value of the field where none is given.
    **bounds: limits by their names in `BOUNDS`; each item of a tuple must obey.
      The limit 'steps', see `check_steps`, is the outer steps of the run.
  """
  assert bounds.keys() <= BOUNDS.keys(), bounds
  return dataclasses.field(default=default, metadata=bounds)


def defaults(config_class: type) -> dict[str, Any]:
  """Return {field: default}, nested, without those that the episode gives."""
  values: dict[str, Any] = {}
  for each in dataclasses.fields(config_class):
    if each.default_factory is not dataclasses.MISSING:
      values[each.name] = defaults(type(each.default_factory()))
    elif each.name not in OF_EPISODE:
      values[each.name] = each.default
  return values


def check(config: Any, prefix: str = '') -> None:
  """Check the type, choices and range of every field of a dataclass.

  Args:
    config: a dataclass instance; nested dataclasses are checked too.
    prefix: put before the names of fields in messages.

  Raises:
    BadInput: naming the field, its value and what is legal.
  """
  kind: type = type(config)
  hints = type_hints(kind)
  for each in dataclasses.fields(config):
    value, name = getattr(config, each.name), f'{prefix}{each.name}'
    if dataclasses.is_dataclass(value):
      check(value, f'{name}.')
      continue
    _check_type(name, value, hints[each.name])
    for number in value if isinstance(value, tuple) else (value,):
      if isinstance(number, float) and not math.isfinite(number):
        raise BadInput(f'{name} = {value} is not a finite number')
      for bound, limit in each.metadata.items():
        obeys, words = BOUNDS[bound]
        if limit != 'steps' and not obeys(number, limit):
          raise BadInput(f'{name} = {value} {words} {limit}')


def check_steps(
  config_class: Any, values: Mapping[str, Any], steps: int, prefix: str = ''
) -> None:
  """Check the fields whose limit is the number of outer steps of the run.

  Args:
    config_class: a dataclass, with its nested ones.
    values: of its fields; those that are missing are not checked.
    steps: outer steps of the run.
    prefix: put before the names of fields in messages.

  Raises:
    BadInput: naming the field, its value and the steps.
  """
  hints = type_hints(config_class)
  for each in dataclasses.fields(config_class):
    if each.name not in values:
      continue
    value, name = values[each.name], f'{prefix}{each.name}'
    if dataclasses.is_dataclass(hints[each.name]):
      check_steps(hints[each.name], value, steps, f'{name}.')
    for bound, limit in each.metadata.items():
      obeys, words = BOUNDS[bound]
      if limit == 'steps' and not obeys(value, steps):
        raise BadInput(f'{name} = {value} {words} config.steps = {steps}')


@functools.cache
def type_hints(config_class: Any) -> dict[str, Any]:
  """Return the types of a dataclass' fields."""
  return get_type_hints(config_class)


def _check_type(name, value, hint):
  if get_origin(hint) is Literal:
    choices = get_args(hint)
    if value not in choices:
      listed = ', '.join(map(str, choices))
      raise BadInput(f'{name} = {value!r} is none of {listed}')
    return
  if get_origin(hint) is tuple:
    kind = get_args(hint)[0]
    fits = isinstance(value, tuple) and all(_is(item, kind) for item in value)
    expected = f'a tuple of {kind.__name__}'
  else:
    fits, expected = _is(value, hint), f'a {hint.__name__}'
  if not fits:
    raise BadInput(f'{name} = {value!r}: expected {expected}')


def _is(value, kind):
  if isinstance(value, bool):
    return kind is bool
  return isinstance(value, (int, float) if kind is float else kind)
