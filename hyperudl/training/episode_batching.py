"""How the gradient of a batch of episodes is computed.

The strategy over episodes is chosen here and nowhere else:

* 'scan': one episode after another with `value_and_grad` inside the body and
  the gradients summed; memory does not grow with B. On a CPU it is by far the
  fastest, since batched per-episode weights become grouped convolutions.
* 'vmap': all episodes at once, or `chunk` of them after one another where
  memory does not hold all; for accelerators and for shared weights.
* 'sharded': episodes divided over the devices of all processes, scan or vmap
  inside.

All give the same numbers up to the float32 order of summation.
"""

import math

import jax
import jax.numpy as jnp

STRATEGIES = ('auto', 'scan', 'vmap', 'sharded')


def split_frozen(params):
  """(trainable, frozen) halves of a parameter dict.

  Upstream networks live in `params['frozen']`; they get neither gradients
  nor optimizer state.
  """
  trainable = {k: v for k, v in params.items() if k != 'frozen'}
  frozen = {k: v for k, v in params.items() if k == 'frozen'}
  return trainable, frozen


def make_mesh(devices=None):
  """One axis 'episodes' over devices, by default all, process by process."""
  devices = jax.devices() if devices is None else devices
  order = sorted(devices, key=lambda d: (d.process_index, d.id))
  return jax.sharding.Mesh(order, ('episodes',))


def resolve_strategy(strategy, batch, devices=None):
  """The concrete strategy for `batch` episodes.

  Args:
    strategy: one of STRATEGIES. 'auto': sharded on several devices that can
      share the batch evenly, else scan on a CPU and vmap on an accelerator.
    batch: B, episodes per update.
    devices: list of devices, by default those of all processes.

  Returns:
    (name, mesh): mesh is None unless the name is 'sharded'.

  Raises:
    ValueError: for an unknown strategy, or a batch that 'sharded' cannot
      divide; on several processes every device needs its share.
  """
  if strategy not in STRATEGIES:
    raise ValueError(f'strategy must be one of {STRATEGIES}, not {strategy!r}')
  devices = list(jax.devices() if devices is None else devices)
  share = math.gcd(batch, len(devices))
  if jax.process_count() > 1:
    if strategy not in ('auto', 'sharded'):
      raise ValueError(
        f'strategy = {strategy!r} is for one process, and there are '
        f'{jax.process_count()}: choose auto or sharded'
      )
    strategy = 'sharded'
  single = 'scan' if devices[0].platform == 'cpu' else 'vmap'
  if strategy == 'sharded' and share != len(devices):
    other = ' or choose strategy=scan' if jax.process_count() == 1 else ''
    raise ValueError(
      f'batch = {batch} episodes cannot be divided over {len(devices)} '
      f'devices; make batch a multiple{other}'
    )
  if strategy == 'auto':
    strategy = 'sharded' if share > 1 else single
  if strategy != 'sharded':
    return strategy, None
  return strategy, make_mesh(devices[:share])


def episode_value_and_grad(loss, strategy='scan', mesh=None, chunk=0):
  """The mean loss over episodes with its gradient.

  Args:
    loss: (params, episode, key, step) -> (f32[], metrics), of ONE episode.
    strategy: 'scan', 'vmap' or 'sharded' (see the module's docstring).
    mesh: for 'sharded', a mesh with one axis named 'episodes'.
    chunk: episodes of a device that 'vmap' takes at once, a divisor of its
      share; 0: all of them.

  Returns:
    (params, episodes [B, ...], keys key[B], step) -> (value f32[], metrics,
    grads): means over B; `grads` has the structure of the trainable params.
  """

  def one(trainable, frozen, episode, key, step):
    value, metrics = loss({**trainable, **frozen}, episode, key, step)
    return value, (value, metrics)

  grad = jax.grad(one, has_aux=True)

  def by_scan(trainable, frozen, episodes, keys, step):
    def body(total, inputs):
      grads, aux = grad(trainable, frozen, *inputs, step)
      return jax.tree.map(jnp.add, total, (aux, grads)), None

    first = jax.tree.map(lambda leaf: leaf[0], (episodes, keys))
    shapes = jax.eval_shape(grad, trainable, frozen, *first, step)
    zeros = jax.tree.map(
      lambda s: jnp.zeros(s.shape, s.dtype), (shapes[1], shapes[0])
    )
    total, _ = jax.lax.scan(body, zeros, (episodes, keys))
    return jax.tree.map(lambda leaf: leaf / keys.shape[0], total)

  def by_vmap(trainable, frozen, episodes, keys, step):
    # The gradient of the mean, not the mean of gradients: what episodes share
    # is one matmul, and no gradient has the axis B.
    def mean(trainable):
      values = jax.vmap(one, (None, None, 0, 0, None))(
        trainable, frozen, episodes, keys, step
      )
      value, aux = jax.tree.map(lambda leaf: jnp.mean(leaf, axis=0), values)
      return value, aux

    grads, aux = jax.grad(mean, has_aux=True)(trainable)
    return aux, grads

  def by_chunks(trainable, frozen, episodes, keys, step):
    parts = keys.shape[0] // chunk if chunk else 1
    if parts <= 1:
      return by_vmap(trainable, frozen, episodes, keys, step)
    group = lambda leaf: leaf.reshape(parts, chunk, *leaf.shape[1:])
    one = lambda inputs: by_vmap(trainable, frozen, *inputs, step)
    inputs = jax.tree.map(group, (episodes, keys))
    shapes = jax.eval_shape(one, jax.tree.map(lambda leaf: leaf[0], inputs))
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
    add = lambda total, part: (jax.tree.map(jnp.add, total, one(part)), None)
    total, _ = jax.lax.scan(add, zeros, inputs)
    return jax.tree.map(lambda leaf: leaf / parts, total)

  def by_shards(trainable, frozen, episodes, keys, step):
    on_cpu = mesh.devices.flat[0].platform == 'cpu'
    local = by_scan if on_cpu and not chunk else by_chunks
    P = jax.sharding.PartitionSpec

    def shard(*args):
      return jax.lax.pmean(local(*args), 'episodes')

    return jax.shard_map(
      shard,
      mesh=mesh,
      in_specs=(P(), P(), P('episodes'), P('episodes'), P()),
      out_specs=P(),
      # The body sums gradients itself; replication tracking would do it twice.
      check_vma=False,
    )(trainable, frozen, episodes, keys, step)

  run = {'scan': by_scan, 'vmap': by_chunks, 'sharded': by_shards}[strategy]

  def value_and_grad(params, episodes, keys, step):
    trainable, frozen = split_frozen(params)
    (value, metrics), grads = run(trainable, frozen, episodes, keys, step)
    return value, metrics, grads

  return value_and_grad
