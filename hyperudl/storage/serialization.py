"""Converts pytrees to bytes and back, leaf by leaf, with checksums."""

import hashlib
import json
import math
from typing import Any

from flax import traverse_util
import jax
import numpy as np

from hyperudl import core


def name_leaves(tree: core.PyTree) -> dict[str, Any]:
  """Return {'params/block0/kernel': leaf}, in the order of the leaves."""
  pairs = jax.tree_util.tree_flatten_with_path(tree)[0]
  return {
    jax.tree_util.keystr(path, simple=True, separator='/'): leaf
    for path, leaf in pairs
  }


def fill(tree: core.PyTree, named: dict[str, Any]) -> core.PyTree:
  """Return `tree` with the leaves of a dict that has its names.

  Args:
    tree: any leaves; None for nested dicts with the parts of the names as keys.
    named: as from `name_leaves`.
  """
  if tree is None:
    return traverse_util.unflatten_dict(named, sep='/')
  return jax.tree.unflatten(
    jax.tree.structure(tree), [named[name] for name in name_leaves(tree)]
  )


def mismatch(stored: dict[str, Any], expected: dict[str, Any]) -> str | None:
  """Describe where two dicts of arrays differ first in name, shape or dtype.

  Args:
    stored: a dict of `name_leaves`; only shapes and dtypes are compared.
    expected: likewise.

  Returns:
    One line, or None if they agree.
  """
  for name in {**expected, **stored}:
    present = _describe(stored[name]) if name in stored else 'missing'
    wanted = _describe(expected[name]) if name in expected else 'none'
    if present != wanted:
      return f'{name} is {present}, expected {wanted}'
  return None


def pack(
  state: core.PyTree, step: int, config: dict, metric: float | None = None
) -> tuple[np.ndarray, dict[str, Any]]:
  """Copy a state to the host and describe its leaves.

  Args:
    state: has an entry `params`; on any devices.
    step: updates done.
    config: of the run; must fit in JSON.
    metric: by which the checkpoint was chosen.

  Returns:
    (bytes of all leaves u8[total], metadata that fits in JSON: step, metric,
    config, and shape, dtype, offset and SHA-256 of each leaf).

  Raises:
    core.NonFinite: a parameter is NaN or infinite.
  """
  leaves, parts, offset = {}, [], 0
  for name, leaf in name_leaves(jax.device_get(state)).items():
    array = np.asarray(leaf)
    if name.startswith('params/') and not np.all(np.isfinite(array)):
      raise core.NonFinite(
        f'{name} is not finite at step {step}: not saved, the last good '
        'checkpoint stays'
      )
    parts.append(np.ascontiguousarray(array).reshape(-1).view(np.uint8))
    leaves[name] = {
      'shape': list(array.shape),
      'dtype': str(array.dtype),
      'offset': offset,
      'sha256': hashlib.sha256(parts[-1].data).hexdigest(),
    }
    offset += array.nbytes
  meta = {'step': step, 'metric': metric, 'config': config, 'leaves': leaves}
  return np.concatenate(parts), {**meta, 'sha256': _digest_json(meta)}


def check_meta(meta: dict[str, Any], step: int) -> None:
  """Raise ValueError if metadata of `pack` are damaged or of another step."""
  body = {key: value for key, value in meta.items() if key != 'sha256'}
  if meta['sha256'] != _digest_json(body):
    raise ValueError('the checksum of its meta data is wrong')
  if meta['step'] != step:
    raise ValueError(f'it holds step {meta["step"]}')


def unpack(data: np.ndarray, meta: dict[str, Any]) -> dict[str, np.ndarray]:
  """Return the dict of `name_leaves` from what `pack` returned.

  Raises:
    ValueError: the checksum of a leaf is wrong.
  """
  named = {}
  for name, leaf in meta['leaves'].items():
    dtype = np.dtype(leaf['dtype'])
    size = math.prod(leaf['shape']) * dtype.itemsize
    flat = data[leaf['offset'] :][:size].copy()
    if hashlib.sha256(flat.data).hexdigest() != leaf['sha256']:
      raise ValueError(f'the checksum of {name} is wrong')
    named[name] = flat.view(dtype).reshape(leaf['shape'])
  return named


def _describe(leaf):
  return f'{leaf.dtype}{list(leaf.shape)}'


def _digest_json(value):
  return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
