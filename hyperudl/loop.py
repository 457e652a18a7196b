"""The outer loop as pure functions: one jitted step over a batch of episodes.

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
import optax

from hyperudl.core import TrainState

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


def init_state(learner, optimizer, key, episode):
  """A fresh `TrainState` for episodes shaped like `episode` (no B axis)."""
  params = jax.jit(learner.init)(key, episode)
  trainable, _ = split_frozen(params)
  opt_state = jax.jit(optimizer.init)(trainable)
  return TrainState(jnp.zeros((), jnp.int32), params, opt_state)


def place(state, mesh):
  """`state` on the device, replicated over `mesh` if there is one.

  The first step must see the placement that later steps will see, or the
  step compiles twice.
  """
  if mesh is None:
    return jax.tree.map(jnp.asarray, state)
  spec = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
  return jax.device_put(state, spec)


def make_train_step(
  learner, optimizer, strategy='scan', mesh=None, several=False, chunk=0
):
  """The jitted update: (state, episodes [B, ...], keys key[B]) -> ...

  Args:
    learner: a `Learner`.
    optimizer: of optax.
    strategy: as `episode_value_and_grad`.
    mesh: likewise.
    several: make one call do S updates, one after another: episodes, keys and
      metrics have a first axis S. It saves the dispatch of small updates.
    chunk: as `episode_value_and_grad`.

  Returns:
    A function that returns (new state, metrics f32[]); the old state is
    donated. A step whose loss or gradient is not finite changes nothing but
    the step number and says so in `metrics['finite']` (1 or 0).
  """
  value_and_grad = episode_value_and_grad(learner.loss, strategy, mesh, chunk)

  def train_step(state, episodes, keys):
    value, metrics, grads = value_and_grad(
      state.params, episodes, keys, state.step
    )
    trainable, frozen = split_frozen(state.params)
    updates, opt_state = optimizer.update(grads, state.opt_state, trainable)
    grad_norm = optax.tree.norm(grads)
    update_norm = optax.tree.norm(updates)
    finite = jnp.isfinite(value + grad_norm + update_norm)
    new = optax.apply_updates(trainable, updates)
    keep = lambda a, b: jnp.where(finite, a, b)
    new, opt_state = jax.tree.map(
      keep, (new, opt_state), (trainable, state.opt_state)
    )
    metrics = {
      **metrics,
      'loss': value,
      'grad_norm': grad_norm,
      'update_norm': update_norm,
      'param_norm': optax.tree.norm(new),
      'finite': finite.astype(jnp.float32),
    }
    params = averaged({**new, **frozen}, state.step)
    return TrainState(state.step + 1, params, opt_state), metrics

  def train_steps(state, episodes, keys):
    return jax.lax.scan(
      lambda state, batch: train_step(state, *batch), state, (episodes, keys)
    )

  return jax.jit(train_steps if several else train_step, donate_argnums=0)


def averaged(params, step):
  """`params` with the running means in `frozen/ema` moved towards their own.

  Args:
    params: where `frozen/ema` has copies of some entries and a `decay`.
    step: i32[], updates before; early means forget faster.
  """
  ema = params.get('frozen', {}).get('ema')
  if ema is None:
    return params
  decay = jnp.minimum(ema['decay'], (1 + step) / (10 + step))
  mix = lambda old, new: decay * old + (1 - decay) * new
  means = {
    k: jax.tree.map(mix, v, params[k]) for k, v in ema.items() if k != 'decay'
  }
  ema = {**means, 'decay': ema['decay']}
  return {**params, 'frozen': {**params['frozen'], 'ema': ema}}


def is_visual(name):
  """Whether a metric is to be looked at: 'image/', 'histogram/', 'points/'."""
  return name.startswith(('image/', 'histogram/', 'points/'))


def make_eval_step(learner, strategy='auto', visuals=False, mesh=None):
  """The jitted evaluation: (params, episodes [B, ...], keys) -> metrics [B].

  Args:
    learner: a `Learner`.
    strategy: 'auto' (a loop over episodes on a CPU, vmap on an accelerator),
      'scan' or 'vmap'.
    visuals: return only the metrics to look at (True) or only the others.
    mesh: of one axis 'episodes', which B must be a multiple of, or None.
  """
  if strategy == 'auto':
    strategy = 'scan' if jax.default_backend() == 'cpu' else 'vmap'

  def evaluate(params, episodes, keys):
    def one(inputs):
      metrics = learner.evaluate(params, *inputs)
      return {k: v for k, v in metrics.items() if is_visual(k) == visuals}

    if strategy == 'scan':
      return jax.lax.map(one, (episodes, keys))
    return jax.vmap(one)((episodes, keys))

  if mesh is None:
    return jax.jit(evaluate)
  P = jax.sharding.PartitionSpec
  return jax.jit(
    jax.shard_map(
      evaluate,
      mesh=mesh,
      in_specs=(P(), P('episodes'), P('episodes')),
      out_specs=P('episodes'),
      check_vma=False,
    )
  )
