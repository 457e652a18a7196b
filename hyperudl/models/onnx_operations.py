"""Translates single operations of a jaxpr into nodes of an ONNX graph.

A translation takes the graph, the equation of the jaxpr and its inputs, and
returns the name of the output, or a list of names.
"""

import math
import string
from typing import Any

import numpy as np
import onnx

from hyperudl import core

# Operations that have one of the same inputs and meaning in ONNX.
_SAME = {
  'abs': 'Abs',
  'add': 'Add',
  'add_any': 'Add',
  'ceil': 'Ceil',
  'copy': 'Identity',
  'cos': 'Cos',
  'div': 'Div',
  'eq': 'Equal',
  'erf': 'Erf',
  'exp': 'Exp',
  'floor': 'Floor',
  'ge': 'GreaterOrEqual',
  'gt': 'Greater',
  'le': 'LessOrEqual',
  'log': 'Log',
  'logistic': 'Sigmoid',
  'lt': 'Less',
  'max': 'Max',
  'min': 'Min',
  'mul': 'Mul',
  'neg': 'Neg',
  'pow': 'Pow',
  'sign': 'Sign',
  'sin': 'Sin',
  'sqrt': 'Sqrt',
  'stop_gradient': 'Identity',
  'sub': 'Sub',
  'tanh': 'Tanh',
}
_LOGICAL = {'and': 'And', 'or': 'Or', 'not': 'Not', 'xor': 'Xor'}
_REDUCTIONS = {
  'reduce_max': 'ReduceMax',
  'reduce_min': 'ReduceMin',
  'reduce_prod': 'ReduceProd',
  'reduce_sum': 'ReduceSum',
}
_END = 2**31 - 1  # of a slice: the end of its axis


def translate(graph: Any, equation: Any, inputs: list[Any]) -> list[str]:
  """Add an operation to a graph.

  Args:
    graph: of `onnx_graph`.
    equation: of a jaxpr.
    inputs: values of its inputs.

  Returns:
    The names of its outputs.

  Raises:
    core.BadInput: it is not known here, or has parameters that ONNX lacks.
  """
  name = equation.primitive.name
  if name in _SAME:
    return [graph.add(_SAME[name], *inputs)]
  if name in _LOGICAL and equation.outvars[0].aval.dtype == bool:
    return [graph.add(_LOGICAL[name], *inputs)]
  if name in _REDUCTIONS:
    axes = np.array(equation.params['axes'], np.int64)
    return [graph.add(_REDUCTIONS[name], inputs[0], axes, keepdims=0)]
  if name not in _OTHERS:
    raise _refusal(name)
  found = _OTHERS[name](graph, equation, *inputs)
  return found if isinstance(found, list) else [found]


def _refusal(what):
  return core.BadInput(
    f'this network has the operation {what!r}, which cannot be exported to '
    '.onnx; use .stablehlo, which has all operations'
  )


def _in_shape(equation):
  return equation.invars[0].aval.shape


def _out_shape(equation):
  return equation.outvars[0].aval.shape


def _check_fixed(ends):
  """Refuse slices whose end depends on the length of the batch."""
  if not all(isinstance(end, int | np.integer) for end in ends):
    raise _refusal('slice of the batch')


def _broadcast(graph, equation, x, *_):
  out = _out_shape(equation)
  aligned = [1] * len(out)
  for axis, dim in zip(
    equation.params['broadcast_dimensions'], _in_shape(equation)
  ):
    aligned[axis] = dim
  if tuple(aligned) != _in_shape(equation):
    x = graph.add('Reshape', x, graph.shape(tuple(aligned)))
  return (
    x if tuple(aligned) == out else graph.add('Expand', x, graph.shape(out))
  )


def _cast(graph, equation, x, *_):
  kind = onnx.helper.np_dtype_to_tensor_dtype(equation.params['new_dtype'])
  return graph.add('Cast', x, to=kind)


def _concatenate(graph, equation, *inputs):
  return graph.add('Concat', *inputs, axis=equation.params['dimension'])


def _convolution(graph, equation, x, w):
  params = equation.params
  numbers = params['dimension_numbers']
  if set(params['lhs_dilation']) != {1} or params['batch_group_count'] != 1:
    raise _refusal('conv_general_dilated with lhs_dilation')
  y = graph.add(
    'Conv',
    graph.add('Transpose', x, perm=numbers.lhs_spec),
    graph.add('Transpose', w, perm=numbers.rhs_spec),
    strides=params['window_strides'],
    pads=[int(p) for p in np.transpose(params['padding']).ravel()],
    dilations=params['rhs_dilation'],
    group=params['feature_group_count'],
  )
  return graph.add('Transpose', y, perm=np.argsort(numbers.out_spec).tolist())


def _dot(graph, equation, x, y):
  (over_x, over_y), (batch_x, batch_y) = equation.params['dimension_numbers']
  ranks = [len(variable.aval.shape) for variable in equation.invars]
  over_last = (over_x, over_y) == ((ranks[0] - 1,), (0,))
  if over_last and ranks[1] == 2 and not batch_x:
    return graph.add('MatMul', x, y)
  letters = iter(string.ascii_letters)
  of_x = [next(letters) for _ in range(ranks[0])]
  of_y = [next(letters) for _ in range(ranks[1])]
  for i, j in zip((*over_x, *batch_x), (*over_y, *batch_y)):
    of_y[j] = of_x[i]
  free_x = [a for i, a in enumerate(of_x) if i not in (*over_x, *batch_x)]
  free_y = [a for i, a in enumerate(of_y) if i not in (*over_y, *batch_y)]
  out = [*(of_x[i] for i in batch_x), *free_x, *free_y]
  rule = f'{"".join(of_x)},{"".join(of_y)}->{"".join(out)}'
  return graph.add('Einsum', x, y, equation=rule)


def _gather(graph, equation, x, indices):
  """Translate a gather of constant places: one window, or points of a grid."""
  numbers = equation.params['dimension_numbers']
  shape, sizes = _in_shape(equation), equation.params['slice_sizes']
  if isinstance(indices, str) or numbers.operand_batching_dims:
    raise _refusal('gather by computed indices')
  indices, axes = np.asarray(indices), numbers.start_index_map
  if indices.ndim == 1:
    ends = [
      # Of axes that are taken whole the length may be that of the batch.
      start + sizes[axis] if sizes[axis] != shape[axis] else _END
      for axis, start in zip(axes, indices)
    ]
    _check_fixed(ends)
    bounds = [np.array(bound, np.int64) for bound in (indices, ends, axes)]
    x = graph.add('Slice', x, *bounds)
    return _reshape(graph, equation, x)
  first, count = axes[0], len(axes)
  places = range(first, first + indices.ndim - 1)
  lengths = shape[first : first + count]
  if (
    axes != tuple(range(first, first + count))
    or numbers.collapsed_slice_dims != axes
    or set(numbers.offset_dims) & set(places)
    or any(
      s != d for i, (s, d) in enumerate(zip(sizes, shape)) if i not in axes
    )
    or not all(isinstance(dim, int | np.integer) for dim in lengths)
  ):
    raise _refusal('gather along several axes')
  flat = np.ravel_multi_index(np.moveaxis(indices, -1, 0), lengths)
  joined = (*shape[:first], math.prod(lengths), *shape[first + count :])
  x = graph.add('Reshape', x, graph.shape(joined))
  return graph.add('Gather', x, flat, axis=first)


def _integer_pow(graph, equation, x):
  power = np.array(equation.params['y'], equation.outvars[0].aval.dtype)
  return graph.add('Pow', x, power)


def _pad(graph, equation, x, value):
  low, high, interior = zip(*equation.params['padding_config'])
  if any(interior):
    raise _refusal('pad between elements')
  return graph.add('Pad', x, np.array([*low, *high], np.int64), value)


def _reshape(graph, equation, x, *_):
  return graph.add('Reshape', x, graph.shape(_out_shape(equation)))


def _select(graph, equation, which, *cases):
  if len(cases) != 2 or equation.invars[0].aval.dtype != bool:
    raise _refusal('select_n of integers')
  return graph.add('Where', which, cases[1], cases[0])


def _slice(graph, equation, x):
  params, shape = equation.params, _in_shape(equation)
  # Of axes that are taken whole the length may be that of the batch.
  ends = [
    _END if end == dim else end
    for end, dim in zip(params['limit_indices'], shape)
  ]
  _check_fixed(ends)
  bounds = params['start_indices'], ends, range(len(shape)), params['strides']
  arrays = [np.array(bound, np.int64) for bound in bounds if bound is not None]
  return graph.add('Slice', x, *arrays)


def _split(graph, equation, x):
  sizes = np.array(equation.params['sizes'], np.int64)
  axis = equation.params['axis']
  return graph.add('Split', x, sizes, axis=axis, outputs=len(sizes))


def _stack(graph, equation, *inputs):
  axis, out = equation.params['axis'], _out_shape(equation)
  aligned = graph.shape((*out[:axis], 1, *out[axis + 1 :]))
  parts = [graph.add('Reshape', x, aligned) for x in inputs]
  return graph.add('Concat', *parts, axis=axis)


_OTHERS = {
  'broadcast_in_dim': _broadcast,
  'clamp': lambda graph, _, low, x, high: graph.add(
    'Min', graph.add('Max', x, low), high
  ),
  'concatenate': _concatenate,
  'conv_general_dilated': _convolution,
  'convert_element_type': _cast,
  'dot_general': _dot,
  'gather': _gather,
  'integer_pow': _integer_pow,
  'ne': lambda graph, _, x, y: graph.add('Not', graph.add('Equal', x, y)),
  'pad': _pad,
  'reshape': _reshape,
  'rsqrt': lambda graph, _, x: graph.add('Reciprocal', graph.add('Sqrt', x)),
  'select_n': _select,
  'slice': _slice,
  'split': _split,
  'stack': _stack,
  'square': lambda graph, _, x: graph.add('Mul', x, x),
  'squeeze': _reshape,
  'transpose': lambda graph, equation, x: graph.add(
    'Transpose', x, perm=equation.params['permutation']
  ),
}
