"""Computes the mean loss of a batch of episodes and its gradient.

The strategy over episodes is chosen here and nowhere else:

* 'scan': one episode after another, their gradients summed. Memory does not
  grow with the batch. By far the fastest on a CPU, where weights that differ
  between episodes would become grouped convolutions.
* 'vmap': all episodes at once, or `chunk` of them at a time to save memory. For
  accelerators and for weights that episodes share.
* 'sharded': episodes divided over the devices of all processes; each uses scan
  or vmap.

All give the same numbers up to the float32 order of summation.
"""

from collections.abc import Callable
from collections.abc import Sequence
import functools
import math
from typing import Any
from typing import NamedTuple

import jax
import jax.numpy as jnp

from hyperudl import core

STRATEGIES = ('auto', 'scan', 'vmap', 'sharded')


class Batching(NamedTuple):
  """How the gradients of a batch of episodes are computed."""

  strategy: str = 'scan'  # 'scan', 'vmap' or 'sharded'
  mesh: jax.sharding.Mesh | None = None  # of 'sharded', one axis 'episodes'
  chunk: int = 0  # episodes of a device that 'vmap' takes at a time; 0: all


SCAN = Batching()


def split_frozen(params: core.PyTree) -> tuple[core.PyTree, core.PyTree]:
  """Split a parameter dict into (trainable, frozen).

  Upstream networks are in `params['frozen']`; they get neither gradients nor
  optimizer state.
  """
  trainable = {k: v for k, v in params.items() if k != 'frozen'}
  frozen = {k: v for k, v in params.items() if k == 'frozen'}
  return trainable, frozen


def make_mesh(devices: Sequence[Any] = ()) -> jax.sharding.Mesh:
  """Return a mesh with one axis 'episodes' over devices, by default all."""
  devices = devices or jax.devices()
  order = sorted(devices, key=lambda d: (d.process_index, d.id))
  return jax.sharding.Mesh(order, ('episodes',))


def choose(
  strategy: str, batch: int, chunk: int = 0, devices: Sequence[Any] = ()
) -> Batching:
  """Choose how to compute a batch of episodes.

  Args:
    strategy: one of STRATEGIES. 'auto': sharded on several devices that can
      divide the batch evenly, else scan on a CPU and vmap on an accelerator.
    batch: B, episodes per update.
    chunk: see `Batching`; a divisor of the episodes of a device, or 0.
    devices: by default those of all processes.

  Raises:
    core.BadInput: for an unknown strategy, or a batch or chunk that cannot be
      divided; on several processes every device needs a part of the batch.
  """
  if strategy not in STRATEGIES:
    raise core.BadInput(
      f'config.strategy must be one of {STRATEGIES}, not {strategy!r}'
    )
  devices, processes = list(devices or jax.devices()), jax.process_count()
  if processes > 1 and strategy not in ('auto', 'sharded'):
    raise core.BadInput(
      f'config.strategy = {strategy!r} is for one process, and there are '
      f'{processes}: choose auto or sharded'
    )
  used = math.gcd(batch, len(devices))
  if used != len(devices) and (strategy == 'sharded' or processes > 1):
    other = '' if processes > 1 else ' or choose strategy=scan'
    raise core.BadInput(
      f'config.batch = {batch} episodes cannot be divided over {len(devices)} '
      f'devices; make batch a multiple{other}'
    )
  if strategy == 'auto':
    single = 'scan' if devices[0].platform == 'cpu' else 'vmap'
    strategy = 'sharded' if used > 1 else single
  mesh = make_mesh(devices[:used]) if strategy == 'sharded' else None
  per_device = batch // (mesh.size if mesh else 1)
  if chunk and per_device % chunk:
    raise core.BadInput(
      f'config.chunk = {chunk} does not divide the {per_device} episodes of a '
      f'device (config.batch = {batch}): choose a divisor or 0'
    )
  return Batching(strategy, mesh, chunk)


def episode_value_and_grad(
  loss: Callable, batching: Batching = SCAN
) -> Callable:
  """Return a function that computes the mean loss over episodes and gradients.

  Args:
    loss: (params, episode, key, step) -> (f32[], metrics), of one episode.
    batching: how to compute them.

  Returns:
    (params, episodes [B, ...], keys key[B], step) -> (value f32[], metrics,
    grads): means over B; `grads` has the structure of the trainable params.
  """
  strategy, mesh, chunk = batching

  def with_aux(trainable, frozen, episode, key, step):
    value, metrics = loss({**trainable, **frozen}, episode, key, step)
    return value, (value, metrics)

  on_cpu = mesh is not None and mesh.devices.flat[0].platform == 'cpu'
  if strategy == 'scan' or (on_cpu and not chunk):
    mean = functools.partial(_mean_by_scan, with_aux)
  else:
    mean = functools.partial(_mean_by_vmap, with_aux, chunk)
  if strategy == 'sharded':
    mean = _sharded(mean, mesh)

  def value_and_grad(params, episodes, keys, step):
    trainable, frozen = split_frozen(params)
    (value, metrics), grads = mean(trainable, frozen, episodes, keys, step)
    return value, metrics, grads

  return value_and_grad


def _mean_by_scan(loss, trainable, frozen, episodes, keys, step):
  """Return ((value, metrics), grads), one episode after another."""
  gradient = jax.grad(loss, has_aux=True)
  one = lambda episode, key: gradient(trainable, frozen, episode, key, step)
  return _mean_over(one, trainable, (episodes, keys))


def _mean_by_vmap(loss, chunk, trainable, frozen, episodes, keys, step):
  """Return ((value, metrics), grads), `chunk` episodes at a time."""

  # The gradient of the mean, not the mean of gradients: what episodes share
  # is one matmul, and no gradient has the axis B.
  def mean_loss(trainable, episodes, keys):
    values = jax.vmap(loss, (None, None, 0, 0, None))(
      trainable, frozen, episodes, keys, step
    )
    return jax.tree.map(lambda leaf: jnp.mean(leaf, axis=0), values)

  gradient = functools.partial(jax.grad(mean_loss, has_aux=True), trainable)
  chunks = keys.shape[0] // chunk if chunk else 1
  if chunks > 1:
    group = lambda leaf: leaf.reshape(chunks, chunk, *leaf.shape[1:])
    grouped = jax.tree.map(group, (episodes, keys))
    return _mean_over(gradient, trainable, grouped)
  grads, aux = gradient(episodes, keys)
  return aux, grads


def _mean_over(gradient, trainable, inputs):
  """Return means over the inputs' leading axis: of aux, and of the gradients.

  `gradient` returns (grads, aux); grads have the shapes of `trainable`.
  """

  def body(total, entry):
    grads, aux = gradient(*entry)
    return jax.tree.map(jnp.add, total, grads), aux

  total, aux = jax.lax.scan(
    body, jax.tree.map(jnp.zeros_like, trainable), inputs
  )
  mean = lambda leaf: jnp.mean(leaf, axis=0)
  count = jax.tree.leaves(inputs)[0].shape[0]
  return jax.tree.map(mean, aux), jax.tree.map(lambda g: g / count, total)


def _sharded(mean, mesh):
  """Average `mean` of the episodes of each device over the devices."""
  P = jax.sharding.PartitionSpec
  return jax.shard_map(
    lambda *args: jax.lax.pmean(mean(*args), 'episodes'),
    mesh=mesh,
    in_specs=(P(), P(), P('episodes'), P('episodes'), P()),
    out_specs=P(),
    # The body sums gradients itself; replication tracking would do it twice.
    check_vma=False,
  )
