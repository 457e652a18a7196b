"""Compiles one update, or one evaluation, of a learner over many episodes."""

from collections.abc import Callable
import functools

import jax
import jax.numpy as jnp
import optax

from hyperudl import core
from hyperudl.training import episode_batching


def init_state(
  learner: core.Learner,
  optimizer: optax.GradientTransformation,
  key: jax.Array,
  episode: core.Episode,
) -> core.TrainState:
  """Return a new state for episodes shaped like `episode` (no B axis)."""
  params = jax.jit(learner.init)(key, episode)
  trainable, _ = episode_batching.split_frozen(params)
  opt_state = jax.jit(optimizer.init)(trainable)
  return core.TrainState(jnp.zeros((), jnp.int32), params, opt_state)


def place(state: core.PyTree, mesh: jax.sharding.Mesh | None) -> core.PyTree:
  """Put arrays on the device, replicated over `mesh` if there is one.

  The first step must get the placement that later steps get, or the step
  compiles twice.
  """
  if mesh is None:
    return jax.tree.map(jnp.asarray, state)
  spec = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
  return jax.device_put(state, spec)


def at_precision(function: Callable, precision: str) -> Callable:
  """Return `function` with the precision of its matrix products set.

  Args:
    function: traced or called in one piece, with all derivatives inside.
    precision: of `config.matmul_precision`, for convolutions too; 'default' is
      the device's own. A CPU computes in float32 in any case, but 'bfloat16'
      keeps images and kernels of episode networks in bfloat16 everywhere.
  """
  if precision == 'default':
    return function

  @functools.wraps(function)
  def run(*args):
    with jax.default_matmul_precision(precision):
      return function(*args)

  return run


def make_train_step(
  learner: core.Learner,
  optimizer: optax.GradientTransformation,
  batching: episode_batching.Batching = episode_batching.SCAN,
  several: bool = False,
  precision: str = 'float32',
) -> Callable:
  """Compile the update (state, episodes [B, ...], keys key[B]) -> ...

  Args:
    learner: a `Learner`.
    optimizer: of optax.
    batching: how to compute the gradients of a batch.
    several: make one call do S updates, one after another: episodes, keys and
      metrics have a first axis S. It saves the dispatch of small updates.
    precision: as in `at_precision`.

  Returns:
    A function that returns (new state, metrics f32[]); the old state is
    donated. A step whose loss or gradient is not finite changes nothing but
    the step number, and `metrics['finite']` is 0 instead of 1.
  """
  value_and_grad = episode_batching.episode_value_and_grad(
    learner.loss, batching
  )
  update = functools.partial(_update, value_and_grad, optimizer)

  def updates(state, episodes, keys):
    return jax.lax.scan(
      lambda state, batch: update(state, *batch), state, (episodes, keys)
    )

  run = at_precision(updates if several else update, precision)
  return jax.jit(run, donate_argnums=0)


def _update(value_and_grad, optimizer, state, episodes, keys):
  """Return (state, metrics) after one step of the optimizer."""
  value, metrics, grads = value_and_grad(
    state.params, episodes, keys, state.step
  )
  trainable, frozen = episode_batching.split_frozen(state.params)
  updates, opt_state = optimizer.update(grads, state.opt_state, trainable)
  grad_norm = optax.tree.norm(grads)
  update_norm = optax.tree.norm(updates)
  finite = jnp.isfinite(value + grad_norm + update_norm)
  new, opt_state = jax.tree.map(
    lambda new, old: jnp.where(finite, new, old),
    (optax.apply_updates(trainable, updates), opt_state),
    (trainable, state.opt_state),
  )
  metrics = {
    **metrics,
    'loss': value,
    'grad_norm': grad_norm,
    'update_norm': update_norm,
    'param_norm': optax.tree.norm(new),
    'finite': finite.astype(jnp.float32),
  }
  params = update_ema({**new, **frozen}, state.step)
  return core.TrainState(state.step + 1, params, opt_state), metrics


def update_ema(params: core.PyTree, step: jax.Array) -> core.PyTree:
  """Move the averages in `frozen/ema` towards the trained parameters.

  Args:
    params: `frozen/ema`, if present, has copies of some entries and a `decay`.
    step: i32[], updates before this one; the averages follow faster at first.
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


def is_visual(name: str) -> bool:
  """Return whether a metric is drawn: 'image/', 'histogram/' or 'points/'."""
  return name.startswith(('image/', 'histogram/', 'points/'))


# What is drawn is computed for one episode, so compiling it takes longest: on a
# CPU this takes a sixth of the time for `udl`.
_COMPILED_QUICKLY = {
  'xla_backend_optimization_level': 0,
  'xla_cpu_use_fusion_emitters': False,
}


def make_eval_step(
  learner: core.Learner,
  strategy: str = 'auto',
  visuals: bool = False,
  mesh: jax.sharding.Mesh | None = None,
  precision: str = 'float32',
) -> Callable:
  """Compile the evaluation (params, episodes [B, ...], keys) -> metrics [B].

  Args:
    learner: a `Learner`.
    strategy: 'auto' (a loop over episodes on a CPU, vmap on an accelerator),
      'scan' or 'vmap'.
    visuals: return only the metrics that are drawn (True) or only the others.
    mesh: of one axis 'episodes', whose size divides B, or None.
    precision: as in `at_precision`.
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
    quickly = visuals and jax.default_backend() == 'cpu'
    return jax.jit(
      evaluate, compiler_options=_COMPILED_QUICKLY if quickly else None
    )
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
