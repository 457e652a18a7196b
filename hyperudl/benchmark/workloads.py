"""Defines the workloads of the benchmark suites: meta-gradients on random data.

5-way 1-shot, 75 queries, 28 x 28 pixels, Conv4 with batch norm, 5 inner steps.
The formulation 'naive' is `vmap` over episodes of a network of standard flax
layers. `experiments/peers` has the same workloads, by name, in plain PyTorch.
"""

from collections.abc import Callable
from collections.abc import Sequence
import dataclasses
import itertools
from typing import Any

from absl import logging
import flax.linen as nn
import jax
import jax.numpy as jnp

from hyperudl import core
from hyperudl import learners
from hyperudl.benchmark import flops
from hyperudl.benchmark import timing
from hyperudl.nets import conv
from hyperudl.ops import gradient_descent
from hyperudl.ops import losses
from hyperudl.ops import normalization
from hyperudl.training import episode_batching
from hyperudl.training import train_step

# For each method: learner, and hyperparameters that differ from its defaults.
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
  'maml': ('maml', {}),
  'anil': ('maml', {'scope': 'head'}),
  'hypermaml': ('hypermaml', {'hidden': 512}),
  'hypermaml warmup': ('hypermaml', {'hidden': 512, 'warmup_steps': 10}),
  'protonet': ('protonet', {}),
}
RATE = 0.01  # learning rate of inner steps
SUITES = ('maml', 'gradient', 'metric', 'accelerator')


@dataclasses.dataclass(frozen=True)
class Workload:
  """The computation of the meta-gradient of a batch of episodes."""

  name: str
  channels: int  # of each of the four blocks
  batch: int  # B
  strategy: str = 'scan'
  formulation: str = 'auto'
  first_order: bool = False
  devices: int = 1
  way: int = 5
  shot: int = 1
  query: int = 15  # per class
  size: int = 28  # pixels
  steps: int = 5  # inner steps
  method: str = 'maml'  # one of METHODS


def suite(name: str = 'maml') -> list[Workload]:
  """Return the workloads of one of SUITES, in the order of printing."""
  if name == 'gradient':  # B = 4, as in the measurements of `peers`
    return _on_one_and_two_devices(
      Workload('maml conv4-64 second-order', 64, 4),
      Workload('maml conv4-64 first-order', 64, 4, first_order=True),
      Workload('maml conv4-8 second-order', 8, 4),
      Workload('anil conv4-64', 64, 4, method='anil'),
      Workload('hypermaml conv4-64', 64, 4, method='hypermaml'),
      Workload('hypermaml conv4-64 warmup', 64, 4, method='hypermaml warmup'),
    )
  if name == 'metric':
    return _on_one_and_two_devices(
      Workload('protonet conv4-64', 64, 4, method='protonet'),
      Workload('protonet conv4-8', 8, 4, method='protonet'),
    )
  if name == 'accelerator':
    return [
      Workload(f'maml conv4-{c} {form} B={batch}', c, batch, 'vmap', form)
      for c in (8, 64)
      for form in ('naive', 'slices', 'auto')
      for batch in (1, 16, 64, 256)
    ]
  workloads = []
  for c, batch in ((8, 8), (64, 4)):
    second = f'maml conv4-{c} second-order'
    first = f'maml conv4-{c} first-order'
    workloads += [
      *_on_one_and_two_devices(
        Workload(second, c, batch),
        Workload(first, c, batch, first_order=True),
      ),
      Workload(f'{second} slices', c, batch, 'scan', 'slices'),
      Workload(f'{second} naive', c, batch, 'vmap', 'naive'),
    ]
  memory = 'maml conv4-64 second-order memory B='
  workloads += [Workload(f'{memory}{b}', 64, b) for b in (1, 4, 16)]
  return workloads + [
    Workload(f'{memory}{b}', 64, b, 'vmap', 'slices') for b in (1, 4)
  ]


def _on_one_and_two_devices(*workloads):
  sharded = {'devices': 2, 'strategy': 'sharded'}
  return [
    dataclasses.replace(workload, **changes)
    for workload in workloads
    for changes in ({}, sharded)
  ]


def select(name: str, text: str) -> list[Workload]:
  """Return the workloads of a suite whose name contains `text`.

  Raises:
    core.BadInput: if there are none.
  """
  chosen = [workload for workload in suite(name) if text in workload.name]
  if not chosen:
    names = ', '.join(sorted({workload.name for workload in suite(name)}))
    raise core.BadInput(f'--filter={text} fits no row; the rows are: {names}')
  return chosen


def rows(
  workloads: Sequence[Workload], precision: str = 'float32'
) -> list[timing.Row]:
  """Compile the workloads for which there are enough devices."""
  fits = lambda workload: workload.devices <= jax.local_device_count()
  for workload in itertools.filterfalse(fits, workloads):
    logging.warning('left out: %s on several devices', workload.name)
  return [_row(workload, precision) for workload in filter(fits, workloads)]


def _row(workload, precision):
  gradient, inputs = make_gradient(workload, precision)
  program = gradient.lower(*inputs).compile()
  memory = program.memory_analysis()
  size = memory.temp_size_in_bytes + memory.argument_size_in_bytes
  return timing.Row(
    workload.name,
    workload.batch,
    lambda: program(*inputs),
    flops.count(gradient, *inputs),
    memory.temp_size_in_bytes,
    {
      'devices': workload.devices,
      'strategy': workload.strategy,
      'formulation': workload.formulation,
      'batch': workload.batch,
      'peak_mb': round(size / 1e6, 1),
    },
  )


def make_gradient(
  workload: Workload, precision: str = 'float32'
) -> tuple[Any, tuple]:
  """Return (jitted value and gradient over episodes, its inputs)."""
  mesh = None
  if workload.strategy == 'sharded':
    devices = jax.local_devices()[: workload.devices]
    mesh = jax.sharding.Mesh(devices, ('episodes',))
  _, loss = make_loss(workload)
  batching = episode_batching.Batching(workload.strategy, mesh)
  run = episode_batching.episode_value_and_grad(loss, batching)
  inputs = train_step.place(make_inputs(workload), mesh)
  return jax.jit(train_step.at_precision(run, precision)), inputs


def make_loss(workload: Workload) -> tuple[Callable, Callable]:
  """Return (init, loss) of the learner of `workload`, as in `core.Learner`."""
  if workload.formulation != 'auto':
    return _plain_maml(workload)
  name, settings = METHODS[workload.method]
  if name != 'protonet':
    settings = {**settings, 'inner_steps': workload.steps, 'inner_rate': RATE}
  if workload.first_order:
    settings = {**settings, 'first_order': True}
  channels = {'channels': (workload.channels,) * 4}
  learner = learners.make(name, workload.way, {**settings, **channels})
  return learner.init, learner.loss


def make_inputs(workload: Workload) -> tuple:
  """Return random (params, episodes [B, ...], keys key[B], step i32[]).

  At outer step 0 no method is in a warm-up phase but 'hypermaml warmup'.
  """
  keys = jax.random.split(jax.random.key(0), 4)

  def examples(key, per_class):
    count, size = workload.way * per_class, workload.size
    x = jax.random.uniform(key, (workload.batch, count, size, size, 1))
    y = jnp.tile(jnp.arange(count) % workload.way, (workload.batch, 1))
    return core.Examples(x, y)

  episodes = core.Episode(
    examples(keys[0], workload.shot), examples(keys[1], workload.query)
  )
  init, _ = make_loss(workload)
  params = jax.jit(init)(keys[2], jax.tree.map(lambda leaf: leaf[0], episodes))
  episode_keys = jax.random.split(keys[3], workload.batch)
  return params, episodes, episode_keys, jnp.int32(0)


def _plain_maml(workload):
  """Return (init, loss) of MAML on a network in the given formulation."""
  if workload.formulation == 'naive':
    net = _Naive(workload.channels, workload.way)
  else:
    net = conv.ConvNet(
      (workload.channels,) * 4,
      head=workload.way,
      formulation=workload.formulation,
    )

  def fit(value, examples):
    logits = net.apply({'params': value}, examples.x)
    return losses.cross_entropy(logits, examples.y)

  def init(key, episode):
    return net.init(key, episode.support.x)['params']

  def loss(params, episode, key, step):
    del key, step
    adapted, _ = gradient_descent.descend(
      lambda value, k: fit(value, episode.support),
      params,
      gradient_descent.make_rates(params, workload.steps, RATE, 'step'),
      first_order=workload.first_order,
    )
    return fit(adapted, episode.query), {}

  return init, loss


class _Naive(nn.Module):
  """Conv4 of standard flax layers."""

  channels: int
  way: int

  @nn.compact
  def __call__(self, x):
    for i in range(4):
      x = nn.Conv(self.channels, (3, 3), use_bias=False)(x)
      mean = jnp.mean(x, (0, 1, 2))
      variance = jnp.mean(jnp.square(x - mean), (0, 1, 2))
      x = (x - mean) * jax.lax.rsqrt(variance + normalization.EPSILON)
      scale = self.param(f'scale{i}', nn.initializers.ones, (self.channels,))
      bias = self.param(f'bias{i}', nn.initializers.zeros, (self.channels,))
      x = nn.max_pool(nn.relu(x * scale + bias), (2, 2), strides=(2, 2))
    return nn.Dense(self.way)(x.reshape(x.shape[0], -1))
