"""Writes the network of a task to files that other programs read."""

from collections.abc import Callable
import importlib
import json
import os
from typing import TYPE_CHECKING
from typing import Any

import jax
import numpy as np

from hyperudl import core
from hyperudl.models import bundle
from hyperudl.storage import filesystem
from hyperudl.storage import serialization
from hyperudl.storage.filesystem import StrPath

if TYPE_CHECKING:
  from hyperudl.models.task import Task

WEIGHTS = 'hyperudl-weights'  # format of .npz and .safetensors


def write(task: 'Task', path: StrPath) -> None:
  """Write the adapted network of a task, whole or not at all.

  Args:
    task: adapted.
    path: of the file, see `Task.export`.

  Raises:
    core.BadInput: see `check`; or an operation that .onnx lacks.
    core.Unwritable: the disk is full or may not be written.
  """
  _WRITERS[check(path)](task, path)


def check(path: StrPath) -> str:
  """Return the ending of a path, by which its format is chosen.

  Raises:
    core.BadInput: there is no such format, or a package for it is missing.
  """
  ending = os.path.splitext(os.fspath(path))[1].lower()
  if ending not in _WRITERS:
    raise core.BadInput(
      f'{path}: the ending {ending!r} names no format; choose one of '
      f'{", ".join(_WRITERS)}'
    )
  package = _PACKAGES.get(ending)
  try:
    if package:
      importlib.import_module(package)
  except ImportError:
    raise core.BadInput(
      f'a file {ending} needs the package {package}, which is not installed: '
      "pip install 'hyperudl[export]'"
    ) from None
  return ending


def weights(task: 'Task') -> dict[str, np.ndarray]:
  """Return the arrays that predictions are computed from, by name.

  'params/...' are of the learner, 'adapted/task...' what it made of the support
  and 'adapted/statistics...' the moments of the norms. What predictions do not
  use, such as a network that generates others, is left out.
  """
  tree = {'adapted': task.adapted, 'params': task.model.params}
  named = serialization.name_leaves(tree)
  predict = task.model.programs.predict

  def function(leaves, x):
    tree_ = serialization.fill(tree, dict(zip(named, leaves)))
    count, temperature = len(task.classes), task.temperature
    return predict(tree_['params'], tree_['adapted'], x, count, temperature)

  x = jax.ShapeDtypeStruct((1, *task.model.inputs.shape), np.float32)
  exported = jax.export.export(jax.jit(function))(list(named.values()), x)
  used = set(exported.module_kept_var_idx)
  return {
    name: np.asarray(leaf)
    for row, (name, leaf) in enumerate(jax.device_get(named).items())
    if row in used
  }


def _predictor(task) -> Callable[[jax.Array], jax.Array]:
  """Return the function f32[n, H, W, C] -> probabilities f32[n, classes]."""
  model, count = task.model, len(task.classes)

  def predict(x):
    return model.programs.predict(
      model.params, task.adapted, x, count, task.temperature
    )[:, :count]

  return predict


def _describe(task) -> dict[str, Any]:
  return {
    **task.model.to_meta(WEIGHTS),
    'classes': task.classes.tolist(),
    'temperature': float(task.temperature),
  }


def _write_npz(task, path):
  bundle.write(path, weights(task), _describe(task))


def _write_safetensors(task, path):
  from safetensors import numpy as safetensors

  about = {name: json.dumps(value) for name, value in _describe(task).items()}
  filesystem.replace(path, safetensors.save(weights(task), about))


def _write_stablehlo(task, path):
  shape = ','.join(['n', *map(str, task.model.inputs.shape)])
  x = jax.ShapeDtypeStruct(jax.export.symbolic_shape(shape), np.float32)
  exported = jax.export.export(
    jax.jit(_predictor(task)), platforms=('cpu', 'cuda', 'tpu')
  )(x)
  filesystem.replace(path, bytes(exported.serialize()))


def _write_onnx(task, path):
  from hyperudl.models import onnx_graph

  about, inputs = _describe(task), task.model.inputs
  about = {name: about[name] for name in ('classes', 'inputs', 'about')}
  content = onnx_graph.make(_predictor(task), inputs.shape, about)
  filesystem.replace(path, content)


_WRITERS = {
  '.npz': _write_npz,
  '.safetensors': _write_safetensors,
  '.stablehlo': _write_stablehlo,
  '.onnx': _write_onnx,
}
# What a format needs beside the library.
_PACKAGES = {
  '.safetensors': 'safetensors',
  '.stablehlo': 'flatbuffers',
  '.onnx': 'onnx',
}
