"""The outer loop as pure functions: one jitted step over many episodes."""

import functools

import jax
import jax.numpy as jnp
import optax

from hyperudl.core import TrainState
from hyperudl.training import episode_batching


def init_state(learner, optimizer, key, episode):
  """A fresh `TrainState` for episodes shaped like `episode` (no B axis)."""
  params = jax.jit(learner.init)(key, episode)
  trainable, _ = episode_batching.split_frozen(params)
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


def at_precision(function, precision):
  """`function` whose matrix products and convolutions have `precision`.

  Args:
    function: traced or called in one piece, with all derivatives inside.
    precision: of `config.matmul_precision`; 'default' is the device's own. A
      CPU computes in float32 whatever it says, but 'bfloat16' has images and
      kernels in the networks of episodes held in bfloat16 everywhere.
  """
  if precision == 'default':
    return function

  @functools.wraps(function)
  def run(*args):
    with jax.default_matmul_precision(precision):
      return function(*args)

  return run


def make_train_step(
  learner,
  optimizer,
  strategy='scan',
  mesh=None,
  several=False,
  chunk=0,
  precision='float32',
):
  """The jitted update: (state, episodes [B, ...], keys key[B]) -> ...

  Args:
    learner: a `Learner`.
    optimizer: of optax.
    strategy: as `strategies.episode_value_and_grad`.
    mesh: likewise.
    several: make one call do S updates, one after another: episodes, keys and
      metrics have a first axis S. It saves the dispatch of small updates.
    chunk: as `strategies.episode_value_and_grad`.
    precision: as `at_precision`.

  Returns:
    A function that returns (new state, metrics f32[]); the old state is
    donated. A step whose loss or gradient is not finite changes nothing but
    the step number and says so in `metrics['finite']` (1 or 0).
  """
  value_and_grad = episode_batching.episode_value_and_grad(
    learner.loss, strategy, mesh, chunk
  )

  def train_step(state, episodes, keys):
    value, metrics, grads = value_and_grad(
      state.params, episodes, keys, state.step
    )
    trainable, frozen = episode_batching.split_frozen(state.params)
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

  run = at_precision(train_steps if several else train_step, precision)
  return jax.jit(run, donate_argnums=0)


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


def make_eval_step(
  learner, strategy='auto', visuals=False, mesh=None, precision='float32'
):
  """The jitted evaluation: (params, episodes [B, ...], keys) -> metrics [B].

  Args:
    learner: a `Learner`.
    strategy: 'auto' (a loop over episodes on a CPU, vmap on an accelerator),
      'scan' or 'vmap'.
    visuals: return only the metrics to look at (True) or only the others.
    mesh: of one axis 'episodes', which B must be a multiple of, or None.
    precision: as `at_precision`.
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

  evaluate = at_precision(evaluate, precision)
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
