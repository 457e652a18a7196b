"""Counts multiplications and additions of a program in its jaxpr.

Only matrix products and convolutions count, as the program performs them: what
`jax.checkpoint` computes twice counts twice, the body of a scan as often as it
runs, unused results not at all. XLA's own cost analysis counts the body of a
loop only once, whatever its length.
"""

from collections.abc import Callable
import math
from typing import Any

import jax
from jax.interpreters import partial_eval


def count(function: Callable, *args: Any) -> int:
  """Count operations of `function(*args)`; a multiply-add counts as two.

  The body of a `while`, whose number of iterations is unknown, counts once, a
  `cond` as its most expensive branch, a program on several devices for all of
  them together.
  """
  jaxpr = jax.make_jaxpr(function)(*args).jaxpr
  needed = [True] * len(jaxpr.outvars)
  return _count_jaxpr(partial_eval.dce_jaxpr(jaxpr, needed)[0])


def _count_jaxpr(jaxpr):
  return sum(_count_equation(equation) for equation in jaxpr.eqns)


def _count_equation(equation):
  name, params = equation.primitive.name, equation.params
  if name == 'dot_general':
    (contracted, _), _ = params['dimension_numbers']
    lhs = equation.invars[0].aval.shape
    size = equation.outvars[0].aval.size
    return 2 * size * math.prod(lhs[axis] for axis in contracted)
  if name == 'conv_general_dilated':
    _, inputs, *window = params['dimension_numbers'].rhs_spec
    kernel = equation.invars[1].aval.shape
    size = equation.outvars[0].aval.size
    return 2 * size * math.prod(kernel[axis] for axis in (inputs, *window))
  inner = [_count_jaxpr(jaxpr) for jaxpr in _jaxprs(params)]
  if name == 'cond':
    return max(inner)
  if name == 'scan':
    return params['length'] * sum(inner)
  if name == 'shard_map':
    return params['mesh'].size * sum(inner)
  return sum(inner)


def _jaxprs(params):
  """Yield the jaxprs among the parameters of an equation."""
  for value in params.values():
    for item in value if isinstance(value, tuple | list) else (value,):
      item = getattr(item, 'jaxpr', item)  # of a ClosedJaxpr
      if hasattr(item, 'eqns'):
        yield item
