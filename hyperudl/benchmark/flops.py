"""Multiplications and additions of a program, counted in its jaxpr.

Matrix products and convolutions alone, as the program performs them: what
`jax.checkpoint` computes twice counts twice, the body of a scan as often as it
runs, what nothing depends on not at all. XLA's own cost analysis counts the
body of a loop once, whatever its length.
"""

import math

import jax
from jax.interpreters import partial_eval


def count(function, *args):
  """Operations of `function(*args)`: a multiplication and an addition are two.

  A `while` whose length is not known counts once, a `cond` by its most
  expensive branch, a program over several devices with all of them.
  """
  jaxpr = jax.make_jaxpr(function)(*args).jaxpr
  needed = [True] * len(jaxpr.outvars)
  return _jaxpr(partial_eval.dce_jaxpr(jaxpr, needed)[0])


def _jaxpr(jaxpr):
  return sum(_equation(equation) for equation in jaxpr.eqns)


def _equation(equation):
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
  inner = [_jaxpr(jaxpr) for jaxpr in _jaxprs(params)]
  if name == 'cond':
    return max(inner)
  if name == 'scan':
    return params['length'] * sum(inner)
  if name == 'shard_map':
    return params['mesh'].size * sum(inner)
  return sum(inner)


def _jaxprs(params):
  """The jaxprs among the parameters of an equation."""
  found = []
  for value in params.values():
    for one in value if isinstance(value, tuple | list) else (value,):
      one = getattr(one, 'jaxpr', one)  # of a closed one
      if hasattr(one, 'eqns'):
        found.append(one)
  return found
