"""Hyperparameters: types, choices and ranges are checked and named."""

import dataclasses
import math
from typing import Literal

import pytest

from hyperudl import core
from hyperudl.core import hyperparameters
from hyperudl.core.hyperparameters import field


@dataclasses.dataclass(frozen=True)
class Inner:
  rate: float = field(0.5, above=0, below=1)


@dataclasses.dataclass(frozen=True)
class Config:
  way: int = field(5, at_least=2)
  kind: Literal['a', 'b'] = 'a'
  sizes: tuple[int, ...] = field((3, 4), at_least=1)
  scale: float = field(1.0, at_least=0, at_most=2)
  flag: bool = False
  inner: Inner = dataclasses.field(default_factory=Inner)


def test_defaults_are_listed_without_the_way():
  assert hyperparameters.defaults(Config) == {
    'kind': 'a',
    'sizes': (3, 4),
    'scale': 1.0,
    'flag': False,
    'inner': {'rate': 0.5},
  }


@pytest.mark.parametrize(
  'values',
  [
    {},
    {'way': 2},
    {'kind': 'b'},
    {'sizes': ()},
    {'scale': 0},  # an int where a float is expected
    {'scale': 2.0},
    {'inner': Inner(0.999)},
  ],
)
def test_legal_values_pass(values):
  hyperparameters.check(Config(**values))


@pytest.mark.parametrize(
  'values, message',
  [
    ({'way': 1}, 'x.way = 1 is below its minimum 2'),
    ({'way': 2.0}, 'x.way = 2.0: expected a int'),
    ({'way': True}, 'x.way = True: expected a int'),
    ({'flag': 1}, 'x.flag = 1: expected a bool'),
    ({'kind': 'c'}, "x.kind = 'c' is none of a, b"),
    ({'sizes': (3, 0)}, r'x.sizes = \(3, 0\) is below its minimum 1'),
    ({'sizes': (3, 'y')}, r"x.sizes = \(3, 'y'\): expected a tuple of int"),
    ({'sizes': [3]}, r'x.sizes = \[3\]: expected a tuple of int'),
    ({'scale': 2.5}, 'x.scale = 2.5 is above its maximum 2'),
    ({'scale': math.nan}, 'x.scale = nan is not a finite number'),
    ({'inner': Inner(0.0)}, 'x.inner.rate = 0.0 must be above 0'),
    ({'inner': Inner(1.0)}, 'x.inner.rate = 1.0 must be below 1'),
  ],
)
def test_a_bad_value_is_named_with_what_is_legal(values, message):
  with pytest.raises(core.BadInput, match=message):
    hyperparameters.check(Config(**values), 'x.')


@dataclasses.dataclass(frozen=True)
class Scheduled:
  warmup: int = field(3, at_least=0, below='steps')


def test_a_limit_of_steps_is_that_of_the_run():
  hyperparameters.check(Scheduled())
  hyperparameters.check_steps(Scheduled, {'warmup': 3}, 4)
  hyperparameters.check_steps(Scheduled, {}, 1)
  with pytest.raises(core.BadInput, match=r'be below config\.steps = 3'):
    hyperparameters.check_steps(Scheduled, {'warmup': 3}, 3)


def test_a_bound_that_does_not_exist_is_a_mistake_of_the_programmer():
  with pytest.raises(AssertionError):
    field(1, atleast=0)
