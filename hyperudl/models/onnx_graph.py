"""Translates a function of JAX into a graph of ONNX.

The operations of its jaxpr are translated one by one; those that depend on
constants alone are computed now, and their results stored. The first axis of
the input may have any length.
"""

from collections.abc import Callable
from collections.abc import Mapping
import json
from typing import Any

import jax
from jax.extend import core as jaxpr_lib
import numpy as np
import onnx

from hyperudl import core
from hyperudl.models import onnx_operations

_OPSET, _IR = 18, 8  # onnxruntime 1.14 and later read them
# Operations that are replaced by the function that they call, a parameter.
_CALLS = {
  'jit': 'jaxpr',
  'pjit': 'jaxpr',
  'closed_call': 'call_jaxpr',
  'custom_jvp_call': 'call_jaxpr',
  'custom_vjp_call': 'call_jaxpr',
  'checkpoint': 'jaxpr',
}


class _Graph:
  """The nodes and constants of a graph that grows.

  A value is the name of an array, or the array itself where it is known.
  """

  def __init__(self, source: str, batch: Any):
    """Begin a graph.

    Args:
      source: name of the input.
      batch: symbolic length of its first axis.
    """
    self.nodes: list[Any] = []
    self.constants: list[Any] = []
    self._names: dict[int, tuple[str, Any]] = {}
    self._count = 0
    self._batch = batch
    shape = self.add('Shape', source, start=0, end=1)
    self._length = shape  # i64[1]

  def add(self, operator: str, *inputs: Any, outputs: int = 1, **fields: Any):
    """Add a node and return the name of its output, or names if several."""
    names = [self._new_name() for _ in range(outputs)]
    self.nodes.append(
      onnx.helper.make_node(
        operator, [self.to_name(value) for value in inputs], names, **fields
      )
    )
    return names[0] if outputs == 1 else names

  def to_name(self, value: Any) -> str:
    """Return the name of a value; an array becomes a constant."""
    if isinstance(value, str):
      return value
    if id(value) not in self._names:
      name = self._new_name()
      array = np.ascontiguousarray(value).reshape(np.shape(value))
      self.constants.append(onnx.numpy_helper.from_array(array, name))
      self._names[id(value)] = name, value  # so that its id stays its own
    return self._names[id(value)][0]

  def shape(self, dims: tuple) -> Any:
    """Return the value i64[D] of lengths that may depend on the batch."""
    factors = np.zeros(len(dims), np.int64)
    fixed = np.zeros(len(dims), np.int64)
    for axis, dim in enumerate(dims):
      if isinstance(dim, int | np.integer):
        fixed[axis] = dim
        continue
      factor = dim // self._batch
      if (
        not isinstance(factor, int | np.integer) or factor * self._batch != dim
      ):
        raise core.BadInput(
          f'an array of this network has a length of {dim}, which cannot be '
          'exported to .onnx; use .stablehlo'
        )
      factors[axis] = factor
    if not factors.any():
      return fixed
    return self.add('Add', self.add('Mul', self._length, factors), fixed)

  def _new_name(self):
    self._count += 1
    return f'v{self._count}'


def make(
  function: Callable[[jax.Array], jax.Array],
  shape: tuple[int, ...],
  about: Mapping[str, Any],
) -> bytes:
  """Return the bytes of an ONNX file that computes a function.

  Its input is `pixels` f32[n, *shape], its output `probabilities` f32[n, C].

  Args:
    function: of images f32[n, *shape].
    shape: (H, W, C) of an image.
    about: stored beside the graph, each value as JSON.

  Raises:
    core.BadInput: the function has an operation that is not translated.
  """
  lengths = jax.export.symbolic_shape(','.join(['n', *map(str, shape)]))
  x = jax.ShapeDtypeStruct(lengths, np.float32)
  closed = jax.make_jaxpr(function)(x)
  graph = _Graph('pixels', lengths[0])
  (out,) = _translate(graph, closed.jaxpr, closed.consts, ['pixels'])
  graph.nodes.append(
    onnx.helper.make_node('Identity', [graph.to_name(out)], ['probabilities'])
  )
  describe = lambda name, shape: onnx.helper.make_tensor_value_info(
    name, onnx.TensorProto.FLOAT, ['n', *shape]
  )
  model = onnx.helper.make_model(
    onnx.helper.make_graph(
      graph.nodes,
      'hyperudl',
      [describe('pixels', shape)],
      [describe('probabilities', closed.out_avals[0].shape[1:])],
      graph.constants,
    ),
    opset_imports=[onnx.helper.make_opsetid('', _OPSET)],
    ir_version=_IR,
    producer_name='hyperudl',
  )
  onnx.helper.set_model_props(
    model, {name: json.dumps(value) for name, value in about.items()}
  )
  onnx.checker.check_model(model)
  return model.SerializeToString()


def _translate(graph, jaxpr, consts, inputs):
  """Add the operations of a jaxpr, and return the values of its outputs."""
  values = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *inputs]))

  def read(atom):
    if isinstance(atom, jaxpr_lib.Literal):
      return np.asarray(atom.val, atom.aval.dtype)
    return values[atom]

  for equation in jaxpr.eqns:
    arguments = [read(atom) for atom in equation.invars]
    name = equation.primitive.name
    if name in _CALLS:
      inner = equation.params[_CALLS[name]]
      consts = getattr(inner, 'consts', ())
      inner = getattr(inner, 'jaxpr', inner)
      found = _translate(graph, inner, consts, arguments)
    elif _is_constant(equation, arguments):
      found = _compute(equation, arguments)
    else:
      found = onnx_operations.translate(graph, equation, arguments)
    values.update(zip(equation.outvars, found))
  return [read(atom) for atom in jaxpr.outvars]


def _is_constant(equation, arguments):
  """Return whether the results depend neither on the input nor its length."""
  return (
    equation.primitive.name != 'dim_as_value'
    and not any(isinstance(value, str) for value in arguments)
    and all(
      isinstance(dim, int | np.integer)
      for variable in equation.outvars
      for dim in variable.aval.shape
    )
  )


def _compute(equation, arguments):
  """Return the results of an operation of known inputs."""
  primitive = equation.primitive
  params = primitive.get_bind_params(equation.params)
  found = primitive.bind(*arguments, **params)
  return found if primitive.multiple_results else [found]
