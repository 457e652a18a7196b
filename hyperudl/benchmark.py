"""Measures the speed of meta-gradients: `python -m hyperudl.benchmark`.

Prints one JSON line a row: MAML (5-way 1-shot, 75 queries, 28 x 28 pixels, 5
inner steps, all parameters adapted) on random data, so only the speed means
anything. A run starts itself again with two host devices; rows with
"devices": 2 divide the episodes between them, one thread each.

* `gflops` counts the multiplications and additions of the matrix products
  and convolutions of one episode (`count_flops`), without what
  `jax.checkpoint` computes twice.
* `gemm_peak_gflops` is a 2048 x 2048 float32 matmul on one device, timed
  just before and just after each repeat of the row; `share_of_peak` is the
  median over repeats of the ratio to the mean of these two.
* `peak_mb` is what the compiled program of one device asks for: temporary
  buffers and arguments. The arguments hold the images and grow with the
  episodes; under 'scan' the buffers do not.
* 'naive' rows are `vmap` over episodes of a network of flax's own layers.

All rows are compiled first and then timed in turns, so that whatever else the
machine does meets all of them: only compare rows of one run.
"""

import dataclasses
import json
import os
import statistics
import sys
import time

from absl import flags
from absl import logging
import flax.linen as nn
import jax
import jax.numpy as jnp

from hyperudl import cli
from hyperudl import core
from hyperudl import inner
from hyperudl import loop
from hyperudl.nets import conv

DEVICES_FLAG = '--xla_force_host_platform_device_count'


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


def make_rows():
  """All rows, in the order of printing."""
  rows = []
  change = dataclasses.replace
  for channels, batch in ((8, 8), (64, 4)):
    name = f'maml conv4-{channels}'
    second = Row(f'{name} second-order', channels, batch)
    first = change(second, name=f'{name} first-order', first_order=True)
    for row in (second, first):
      rows += [row, change(row, devices=2, strategy='sharded')]
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


def count_flops(row):
  """Multiplications and additions of one episode's meta-gradient.

  A convolution costs as much in each of its gradients. Per image and
  convolution, in units of one pass, and in brackets for the first one,
  whose input has no gradient:

  * queries: forward, gradient of the input, of the kernel: 3 (2);
  * support, each step, forward and gradients: 3 (2);
  * second order: each of the latter has two derivatives: 6 more (2 more).

  Args:
    row: a `Row`.

  Returns:
    A number of operations.
  """
  support = row.way * row.shot * row.steps
  queries = row.way * row.query
  inner_rest, inner_first = (3, 2) if row.first_order else (9, 4)
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
  """The MAML loss of `row` as loss(params, episode, key, step)."""
  net = _make_net(row)

  def loss(params, episode, key, step):
    del key, step
    apply = lambda value, x: net.apply({'params': value}, x)
    rates = inner.make_rates(params, row.steps, 0.01, 'step')
    adapted, _ = inner.descend(
      lambda value, k: core.cross_entropy(
        apply(value, episode.support.x), episode.support.y
      ),
      params,
      rates,
      first_order=row.first_order,
    )
    logits = apply(adapted, episode.query.x)
    return core.cross_entropy(logits, episode.query.y), {}

  return loss


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
      x = (x - mean) * jax.lax.rsqrt(variance + conv.EPSILON)
      scale = self.param(f'scale{i}', nn.initializers.ones, (self.channels,))
      bias = self.param(f'bias{i}', nn.initializers.zeros, (self.channels,))
      x = nn.max_pool(nn.relu(x * scale + bias), (2, 2), strides=(2, 2))
    return nn.Dense(self.way)(x.reshape(x.shape[0], -1))


def _make_net(row):
  if row.formulation == 'naive':
    return _Naive(row.channels, row.way)
  return conv.ConvNet(
    (row.channels,) * 4, head=row.way, formulation=row.formulation
  )


def make_inputs(row):
  """Random (params, episodes [B, ...], keys key[B], step) for `row`."""
  keys = jax.random.split(jax.random.key(0), 4)

  def examples(key, per_class):
    count = row.way * per_class
    x = jax.random.uniform(key, (row.batch, count, row.size, row.size, 1))
    y = jnp.tile(jnp.arange(count) % row.way, (row.batch, 1))
    return core.Examples(x, y)

  episodes = core.Episode(
    examples(keys[0], row.shot), examples(keys[1], row.query)
  )
  init = jax.jit(_make_net(row).init)
  params = init(keys[2], episodes.support.x[0])['params']
  return params, episodes, jax.random.split(keys[3], row.batch), jnp.int32(0)


def _seconds(function, *args):
  start = time.perf_counter()
  jax.block_until_ready(function(*args))
  return time.perf_counter() - start


def _compile(row):
  """(program, its inputs) of one row."""
  mesh = None
  if row.strategy == 'sharded':
    devices = jax.local_devices()[: row.devices]
    mesh = jax.sharding.Mesh(devices, ('episodes',))
  run = loop.episode_value_and_grad(make_loss(row), row.strategy, mesh)
  inputs = loop.place(make_inputs(row), mesh)
  return jax.jit(run).lower(*inputs).compile(), inputs


def _describe(row, program, times, peaks):
  seconds = statistics.median(times) / row.batch
  peak = statistics.median(peaks)
  work = count_flops(row) * row.batch / 1e9  # GFLOP of the program
  shares = [work / t / p for t, p in zip(times, peaks)]
  memory = program.memory_analysis()
  size = memory.temp_size_in_bytes + memory.argument_size_in_bytes
  return {
    'name': row.name,
    'devices': row.devices,
    'strategy': row.strategy,
    'formulation': row.formulation,
    'batch': row.batch,
    'episodes_per_second': round(1 / seconds, 2),
    'ms_per_episode': round(seconds * 1e3, 3),
    'peak_mb': round(size / 1e6, 1),
    'gflops': round(work / row.batch / seconds, 2),
    'gemm_peak_gflops': round(peak, 1),
    'share_of_peak': round(statistics.median(shares), 3),
  }


def measure(rows, repeats=5, matmul=2048):
  """Compiles all rows, then times them in turns.

  Args:
    rows: `Row`s; those that need more devices than there are are left out.
    repeats: how often each is timed; medians are reported.
    matmul: rows and columns of the matrices of the peak.

  Returns:
    A list of dicts of plain numbers and strings, one for each row.
  """
  programs = []
  for row in rows:
    if row.devices > jax.local_device_count():
      logging.warning('left out: %s on %d devices', row.name, row.devices)
      continue
    logging.info('compiling: %s on %d devices', row.name, row.devices)
    programs.append((row, *_compile(row), [], []))
  matrix = jnp.ones((matmul, matmul), jnp.float32)
  multiply = jax.jit(jnp.matmul)
  gflops = lambda: 2 * matmul**3 / _seconds(multiply, matrix, matrix) / 1e9
  for turn in range(repeats + 1):
    for _, program, inputs, times, peaks in programs:
      before = gflops()
      seconds = _seconds(program, *inputs)
      peak = (before + gflops()) / 2
      if turn:  # the first turn warms up
        times.append(seconds)
        peaks.append(peak)
    logging.info('turn %d of %d done', turn, repeats)
  return [
    _describe(row, program, times, peaks)
    for row, program, _, times, peaks in programs
  ]


def select(rows, text):
  """The rows whose name contains `text`; core.BadInput if there are none."""
  chosen = [row for row in rows if text in row.name]
  if not chosen:
    names = sorted({row.name for row in rows})
    raise core.BadInput(
      f'--filter={text} fits no row; the rows are: {", ".join(names)}'
    )
  return chosen


def _restart_with_two_devices():
  """Host devices are counted once, before JAX starts: so start again."""
  before = os.environ.get('XLA_FLAGS', '')
  if DEVICES_FLAG in before:
    return
  os.environ['XLA_FLAGS'] = f'{before} {DEVICES_FLAG}=2'.strip()
  arguments = ['-m', 'hyperudl.benchmark', *sys.argv[1:]]
  os.execv(sys.executable, [sys.executable, *arguments])


def main(argv):
  """Prints one JSON line a row."""
  del argv
  rows = select(make_rows(), FLAGS.filter)
  if FLAGS.repeats < 1:
    raise core.BadInput(f'--repeats must be >= 1, not {FLAGS.repeats}')
  _restart_with_two_devices()
  cli.set_up()
  for line in measure(rows, FLAGS.repeats):
    sys.stdout.write(json.dumps(line) + '\n')


if __name__ == '__main__':
  FLAGS = flags.FLAGS
  flags.DEFINE_string(
    'filter', '', "Only rows whose name contains this: 'conv4-8', 'memory'."
  )
  flags.DEFINE_integer(
    'repeats', 5, 'Times that each row is timed; medians are printed.'
  )
  cli.run(main)
