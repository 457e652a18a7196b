"""What `benchmark.py` measures: the gradient-based family on random data.

5-way 1-shot, 75 queries, 28 x 28 pixels, Conv4 with batch norm; 5 inner steps.
`benchmarks/` has the same in plain torch, by the names of `Row`.
"""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp

from hyperudl import core
from hyperudl import learners
from hyperudl.nets import conv
from hyperudl.ops import gradient_descent
from hyperudl.ops import losses
from hyperudl.ops import normalization

# Settings of the learners; the defaults of their `make` otherwise.
METHODS = {
  'maml': ('maml', {}),
  'anil': ('maml', {'scope': 'head'}),
  'hypermaml': ('hypermaml', {'hidden': 512}),
  'hypermaml warmup': ('hypermaml', {'hidden': 512, 'warmup_steps': 10}),
  'protonet': ('protonet', {}),
}
RATE = 0.01  # of inner steps
SUITES = ('maml', 'gradient', 'metric', 'accelerator')


@dataclasses.dataclass(frozen=True)
class Row:
  """One setting to measure."""

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
  steps: int = 5  # inner
  method: str = 'maml'  # one of METHODS


def make_rows(suite='maml'):
  """All rows of a suite of SUITES, in the order of printing."""
  return {
    'maml': _maml_rows,
    'gradient': _gradient_rows,
    'metric': _metric_rows,
    'accelerator': _accelerator_rows,
  }[suite]()


def _on_one_and_two_devices(row):
  return [row, dataclasses.replace(row, devices=2, strategy='sharded')]


def _maml_rows():
  """Formulations, strategies and memory of MAML's meta-gradient."""
  rows = []
  change = dataclasses.replace
  for channels, batch in ((8, 8), (64, 4)):
    name = f'maml conv4-{channels}'
    second = Row(f'{name} second-order', channels, batch)
    first = change(second, name=f'{name} first-order', first_order=True)
    rows += _on_one_and_two_devices(second) + _on_one_and_two_devices(first)
    for form, strategy in (('slices', 'scan'), ('naive', 'vmap')):
      label = f'{second.name} {form}'
      rows.append(
        change(second, name=label, formulation=form, strategy=strategy)
      )
  for form, strategy in (('auto', 'scan'), ('slices', 'vmap')):
    for batch in (1, 4, 16) if strategy == 'scan' else (1, 4):
      name = f'maml conv4-64 second-order memory B={batch}'
      rows.append(Row(name, 64, batch, strategy, form))
  return rows


def _gradient_rows():
  """The family at the shapes that peers are measured at: B = 4."""
  rows = [
    Row('maml conv4-64 second-order', 64, 4),
    Row('maml conv4-64 first-order', 64, 4, first_order=True),
    Row('maml conv4-8 second-order', 8, 4),
    Row('anil conv4-64', 64, 4, method='anil'),
    Row('hypermaml conv4-64', 64, 4, method='hypermaml'),
    Row('hypermaml conv4-64 warmup', 64, 4, method='hypermaml warmup'),
  ]
  return [row for one in rows for row in _on_one_and_two_devices(one)]


def _metric_rows():
  """Prototypical networks at the shapes of their peer: B = 4."""
  rows = [
    Row('protonet conv4-64', 64, 4, method='protonet'),
    Row('protonet conv4-8', 8, 4, method='protonet'),
  ]
  return [row for one in rows for row in _on_one_and_two_devices(one)]


def _accelerator_rows():
  """MAML against B: grouped convolutions of the library, or ours."""
  return [
    Row(
      f'maml conv4-{channels} {form} B={batch}', channels, batch, 'vmap', form
    )
    for channels in (8, 64)
    for form in ('naive', 'slices', 'auto')
    for batch in (1, 16, 64, 256)
  ]


def count_flops(row):
  """Multiplications and additions of one episode's meta-gradient of MAML.

  A convolution costs as much in each of its gradients. Per image and
  convolution, in units of one pass, and in brackets for the first one,
  whose input has no gradient:

  * queries: forward, gradient of the input, of the kernel: 3 (2);
  * support, each step, forward and gradients: 3 (2);
  * second order: each of the latter has two derivatives: 6 more (2 more).

  Args:
    row: a `Row`; methods that adapt the head alone, or write it, count the
      support once.

  Returns:
    A number of operations.
  """
  support, queries = row.way * row.shot, row.way * row.query
  inner_rest, inner_first = (3, 2) if row.first_order else (9, 4)
  if row.method == 'maml':
    support *= row.steps
  else:
    inner_rest, inner_first = 3, 2
  total, inputs, size = 0, 1, row.size
  for index in range(4):
    one = 2 * size * size * 9 * inputs * row.channels
    if index == 0:
      total += one * (2 * queries + inner_first * support)
    else:
      total += one * (3 * queries + inner_rest * support)
    inputs, size = row.channels, size // 2
  head = 2 * size * size * row.channels * row.way
  return total + head * (3 * queries + inner_rest * support)


def make_loss(row):
  """(init, loss) of the learner of `row`, as in `core.Learner`."""
  if row.formulation != 'auto':
    return _plain_maml(row)
  name, settings = METHODS[row.method]
  settings = {**settings, 'channels': (row.channels,) * 4, 'norm': 'batch'}
  if name == 'maml':
    settings['first_order'] = row.first_order
  if name != 'protonet':
    settings.update(inner_steps=row.steps, inner_rate=RATE)
  learner = learners.make(name, row.way, settings)
  return learner.init, learner.loss


def _plain_maml(row):
  """MAML on a network in a formulation that learners do not choose."""
  if row.formulation == 'naive':
    net = _Naive(row.channels, row.way)
  else:
    net = conv.ConvNet(
      (row.channels,) * 4, head=row.way, formulation=row.formulation
    )
  apply = lambda value, x: net.apply({'params': value}, x)

  def init(key, episode):
    return net.init(key, episode.support.x)['params']

  def loss(params, episode, key, step):
    del key, step

    adapted, _ = gradient_descent.descend(
      lambda value, k: losses.cross_entropy(
        apply(value, episode.support.x), episode.support.y
      ),
      params,
      gradient_descent.make_rates(params, row.steps, RATE, 'step'),
      first_order=row.first_order,
    )
    logits = apply(adapted, episode.query.x)
    return losses.cross_entropy(logits, episode.query.y), {}

  return init, loss


class _Naive(nn.Module):
  """Conv4 as one writes it without knowing of per-episode weights."""

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


def make_inputs(row):
  """Random (params, episodes [B, ...], keys key[B], step) for `row`.

  The step is beyond every warm-up but that of 'hypermaml warmup', at 0.
  """
  keys = jax.random.split(jax.random.key(0), 4)

  def examples(key, per_class):
    count = row.way * per_class
    x = jax.random.uniform(key, (row.batch, count, row.size, row.size, 1))
    y = jnp.tile(jnp.arange(count) % row.way, (row.batch, 1))
    return core.Examples(x, y)

  episodes = core.Episode(
    examples(keys[0], row.shot), examples(keys[1], row.query)
  )
  init, _ = make_loss(row)
  one = jax.tree.map(lambda leaf: leaf[0], episodes)
  params = jax.jit(init)(keys[2], one)
  return params, episodes, jax.random.split(keys[3], row.batch), jnp.int32(0)
