r"""Speed of one configuration: `python -m hyperudl.benchmark_learner`.

  python -m hyperudl.benchmark_learner --batches=1,16 \
    --config=configs/hypertransformer.py:reference,omniglot,way=20,shot=1

Prints one JSON line a row: drawing episodes (gather, augmentation and shift),
whole updates with drawing, for each of --batches (and, as `update B x S`, S in
one dispatch for each of --calls), evaluation with all that it
measures, and `answer 1`, what a user waits for: one episode adapted to and its
queries answered; for a `hypertransformer` also its parts, each with its
gradients and on random activations of the right shapes: image features, layer
features, encoders, and the CNN on support and queries. `share` is a part's
time to that of an update of one episode, if --batches has 1. Parts overlap in a
whole program, so shares need not add up; a generator with a decoder is not
taken apart.
All rows are timed in turns and the median is reported; `gemm_peak_gflops` is a
2048 x 2048 float32 matmul timed beside them, `peak_rss_mb` what the process
has taken at most. Exit codes: 0 done; 2 bad flag, config or data.
"""

import functools
import json
import resource
import statistics
import sys
import time

from absl import flags
from absl import logging
import jax
import jax.numpy as jnp
from ml_collections import config_flags

from hyperudl import cli
from hyperudl import config as config_lib
from hyperudl import core
from hyperudl import feeding
from hyperudl import layerwriting
from hyperudl import loop
from hyperudl import preparing
from hyperudl.data import episodes
from hyperudl.learners import hypertransformer
from hyperudl.nets import writer

MATMUL = 2048


def updates(config, batches, calls=(1,)):
  """{name: (episodes of one call, () -> arrays)} of drawing and of updates."""
  learner, draw, optimizer, *_ = preparing.prepare(config)
  rows = {}
  for batch in batches:
    keys = episodes.train_keys(config.seed, 0, batch)
    one = jax.tree.map(lambda leaf: leaf[0], draw(keys))
    rows[f'draw {batch}'] = batch, lambda keys=keys: draw(keys)
    for count in calls:
      name = f'update {batch}' + (f' x {count}' if count > 1 else '')
      update = _update(config, (learner, draw, optimizer), one, batch, count)
      rows[name] = batch * count, update
  evaluate = loop.make_eval_step(learner)
  size = config.eval.batch
  keys = episodes.eval_keys('test', 0, size)
  params = loop.init_state(learner, optimizer, jax.random.key(0), one).params
  rows[f'evaluate {size}'] = size, lambda: evaluate(params, draw(keys), keys)
  rows['answer 1'] = 1, lambda: _answer(learner, params, one, keys[0])
  return rows, one, learner


def _update(config, parts, one, batch, count):
  """() -> metrics of `count` updates in one dispatch, with drawing."""
  learner, draw, optimizer = parts
  strategy, mesh = loop.resolve_strategy(config.strategy, batch)
  step = loop.make_train_step(
    learner, optimizer, strategy, mesh, count > 1, config.chunk
  )
  state = loop.init_state(learner, optimizer, jax.random.key(0), one)
  holder = [loop.place(state, mesh)]
  config = config.copy_and_resolve_references()
  lengths = dict.fromkeys(
    ('steps', 'steps_per_call', 'log_steps', 'checkpoint_steps'), count
  )
  with config.unlocked():
    config.update({'batch': batch, **lengths})

  def update():
    # The state is given away, so the next call goes on from here.
    _, batches, keys = next(feeding.feed(config, draw, mesh, 0))
    holder[0], metrics = step(holder[0], batches, keys)
    return metrics

  return update


@functools.partial(jax.jit, static_argnums=0)
def _answer(learner, params, episode, key):
  """Logits of the queries of one episode, as at test time."""
  task = learner.adapt(params, episode.support, key, train=False)
  return learner.predict(params, task, episode.query.x, episode.query.context)


def hypertransformer_parts(config, episode, learner):
  """{name: (1, () -> arrays)} of the parts of one update of one episode."""
  settings = config_lib.learner_settings(config)
  s = hypertransformer.settings_of(config.episode.way, **settings)
  params = jax.jit(learner.init)(jax.random.key(0), episode)
  adapt = lambda p: learner.adapt(
    p, episode.support, jax.random.key(0), train=False
  )
  task = jax.jit(adapt)(params)
  cnn_of = lambda task: task if s.head == 'written' else task['cnn']
  written, rows = params['writer'], episode.support.y.shape[0]
  inputs, z = {}, 2 * episode.support.x - 1
  for index in range(s.depth):
    inputs[f'block{index}'] = z
    z = writer.block(s).apply({'params': cnn_of(task)[f'block{index}']}, z)
  inputs['head'] = z

  def shared(params, x):
    net = writer.shared_features(s)
    return net.apply({'params': params['shared']['features']}, x)

  def features(params, inputs):
    found = {}
    for name, z in inputs.items():
      if f'{name}_features' in written:
        own = {'params': params['writer'][f'{name}_features']}
        found[name] = writer.layer_features(s, name, z).apply(own, z)
    return found

  def encoders(params, sequences):
    return {
      name: writer.encoder(s, name).apply(
        {'params': params['writer'][name]['encoder']}, sequence
      )
      for name, sequence in sequences.items()
    }

  sequences = {
    name: jnp.ones(
      (
        layer['weights'].shape[0] + rows,
        layer['encoder']['norm0a']['scale'].shape[0],
      )
    )
    for name, layer in written.items()
    if 'encoder' in layer
  }
  images = jnp.concatenate([episode.support.x, episode.query.x])
  cnn = lambda task, x: layerwriting.embed(s, task, x)
  parts = {'cnn': (cnn, cnn_of(task), images)}
  if s.features:
    parts['layer features'] = (features, params, inputs)
  if s.generator == 'joint' and not s.decoder:
    parts['encoders'] = (encoders, params, sequences)
  if s.shared != 'none':
    parts['shared features'] = (shared, params, inputs['block0'])
  return {f'part {k}': (1, _with_gradients(*v)) for k, v in parts.items()}


def _with_gradients(function, params, x):
  """() -> value and gradients of a sum over what `function` returns."""
  total = lambda params, x: sum(
    jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(function(params, x))
  )
  run = jax.jit(jax.value_and_grad(total, (0, 1)))
  return lambda: run(params, x)


def measure(rows, repeats, matmul=MATMUL, seconds=0.2):
  """Times rows in turns.

  Args:
    rows: {name: (episodes of one call, () -> arrays)}.
    repeats: how often each is timed.
    matmul: rows and columns of the matrices of the peak.
    seconds: calls are repeated until about so many have passed, each time.

  Returns:
    A list of dicts of plain numbers and strings, one for each row.
  """
  matrix = jnp.ones((matmul, matmul), jnp.float32)
  multiply = jax.jit(jnp.matmul)
  rows = {**rows, 'gemm': (1, lambda: multiply(matrix, matrix))}
  calls, times = {}, {name: [] for name in rows}
  for name, (_, call) in rows.items():
    logging.info('compiling: %s', name)
    jax.block_until_ready(call())
    calls[name] = max(1, round(seconds / _seconds(call, 1)))
  for turn in range(repeats):
    for name, (_, call) in rows.items():
      times[name].append(_seconds(call, calls[name]))
    logging.info('turn %d of %d done', turn + 1, repeats)
  median = {name: statistics.median(values) for name, values in times.items()}
  whole = median.get('update 1')
  peak = 2 * matmul**3 / median.pop('gemm') / 1e9
  memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
  return [
    {
      'name': name,
      'ms_per_call': round(1e3 * took, 4),
      'episodes_per_second': round(rows[name][0] / took, 2),
      'share': round(took / whole, 3) if whole else None,
      'gemm_peak_gflops': round(peak, 1),
      'peak_rss_mb': round(memory),
    }
    for name, took in median.items()
  ]


def _seconds(call, count):
  """Mean seconds of `count` calls, waiting for the last."""
  start = time.perf_counter()
  for _ in range(count):
    result = call()
  jax.block_until_ready(result)
  return (time.perf_counter() - start) / count


def main(argv):
  """Prints one JSON line a row."""
  del argv
  values = flags.FLAGS
  config = values.config
  try:
    batches, calls = (
      [int(text) for text in given] for given in (values.batches, values.calls)
    )
  except ValueError:
    batches = calls = [0]
  if min(*batches, *calls, values.repeats) < 1:
    raise core.BadInput(
      '--batches and --calls take numbers like 1,16 and --repeats one, all at '
      f'least 1, not {values.batches}, {values.calls} and {values.repeats}'
    )
  cli.set_up()
  rows, episode, learner = updates(config, batches, calls)
  parts = config.learner.name == 'hypertransformer'
  if parts and config.learner.stage == 'all':
    rows.update(hypertransformer_parts(config, episode, learner))
  for line in measure(rows, values.repeats):
    sys.stdout.write(json.dumps(line) + '\n')


if __name__ == '__main__':
  config_flags.DEFINE_config_file('config', None, 'configs/NAME.py[:variant].')
  flags.mark_flag_as_required('config')
  flags.DEFINE_list('batches', ['1', '16'], 'Episodes an update, several.')
  flags.DEFINE_list('calls', ['1'], 'Updates in one dispatch, several.')
  flags.DEFINE_integer('repeats', 5, 'Times that each row is timed.')
  cli.run(main)
