r"""Speed of one configuration: `python -m hyperudl.benchmark.learner`.

  python -m hyperudl.benchmark.learner --batches=1,16 \
    --config=configs/hypertransformer.py:reference,omniglot,way=20,shot=1

Prints one JSON line a row: drawing episodes (gather, augmentation and shift; of
features where training has been through a frozen encoder before its updates),
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
2048 x 2048 float32 matmul on one device timed beside them, `gflops` the matrix
products and convolutions that the program performs (`flops.py`), and
`share_of_peak` their ratio; `temporary_mb` is what an update takes on a device
beside parameters and episodes (with `scan` the same for any number of episodes,
with `vmap` that of `chunk` episodes), `peak_rss_mb` what the process has taken
at most. --compare=FILE adds `ratio`, the speed over that of the same row in
FILE, which an earlier call has printed.

Several processes (`processes.py`), or devices, measure updates alone, together;
--devices divides one process's cores into so many devices. Exit codes: 0 done;
2 bad flag, config or data; 8 a device has too little memory.
"""

import functools
import json
import sys

from absl import flags
import jax
import jax.numpy as jnp
from ml_collections import config_flags

from hyperudl import core
from hyperudl.benchmark import flops
from hyperudl.benchmark import timing
from hyperudl.core import cli
from hyperudl.core import config as config_lib
from hyperudl.core import distributed
from hyperudl.data import episodes
from hyperudl.learners import hypertransformer
from hyperudl.learners.hypertransformer import episode_network
from hyperudl.learners.hypertransformer import weight_generator
from hyperudl.training import input_pipeline
from hyperudl.training import setup
from hyperudl.training import train_step


def updates(config, batches, calls=(1,)):
  """({name: timing.Row} of drawing, updates and answers; episode; learner)."""
  for batch in batches:
    setup.strategy_of(config, batch)
  prepared = setup.prepare(config)
  learner, _, draw, optimizer, *_ = prepared
  one = draw(episodes.train_keys(config.seed, 0, 1))
  one = jax.tree.map(lambda leaf: leaf[0], one)
  params = train_step.init_state(
    learner, optimizer, jax.random.key(0), one
  ).params
  training = setup.encoded(config, prepared, params)
  rows, alone = {}, jax.device_count() == 1
  for batch in batches:
    keys = episodes.train_keys(config.seed, 0, batch)
    if alone:
      rows[f'draw {batch}'] = timing.Row(
        batch, lambda keys=keys: training.draw(keys)
      )
    for count in calls:
      name = f'update {batch}' + (f' x {count}' if count > 1 else '')
      rows[name] = _update(config, training, one, batch, count)
  if alone:
    size = config.eval.batch
    precision = config.matmul_precision
    evaluate = train_step.make_eval_step(learner, precision=precision)
    keys = episodes.eval_keys('test', 0, size)
    rows[f'evaluate {size}'] = timing.Row(
      size,
      lambda: evaluate(params, draw(keys), keys),
      flops.count(evaluate, params, draw(keys), keys),
    )
    answer = functools.partial(_answer, learner)
    answer = jax.jit(train_step.at_precision(answer, precision))
    rows['answer 1'] = timing.Row(
      1,
      lambda: answer(params, one, keys[0]),
      flops.count(answer, params, one, keys[0]),
    )
  return rows, one, learner


def _update(config, prepared, one, batch, count):
  """The row of `count` updates in one dispatch, with drawing."""
  learner, _, draw, optimizer, *_ = prepared
  strategy, mesh = setup.strategy_of(config, batch)
  step = train_step.make_train_step(
    learner,
    *(optimizer, strategy, mesh),
    several=count > 1,
    chunk=config.chunk,
    precision=config.matmul_precision,
  )
  state = train_step.init_state(learner, optimizer, jax.random.key(0), one)
  holder = [train_step.place(state, mesh)]
  config = config.copy_and_resolve_references()
  lengths = dict.fromkeys(
    ('steps', 'steps_per_call', 'log_steps', 'checkpoint_steps'), count
  )
  with config.unlocked():
    config.update({'batch': batch, **lengths})
  inputs = lambda: next(input_pipeline.feed(config, draw, mesh, 0))[1:]

  def update():
    # The state is given away, so the next call goes on from here.
    holder[0], metrics = step(holder[0], *inputs())
    return metrics

  work = flops.count(step, holder[0], *inputs())
  step = step.lower(holder[0], *inputs()).compile()
  memory = getattr(step.memory_analysis(), 'temp_size_in_bytes', 0)
  return timing.Row(batch * count, update, work, memory)


def _answer(learner, params, episode, key):
  """Logits of the queries of one episode, as at test time."""
  task = learner.adapt(params, episode.support, key, train=False)
  return learner.predict(params, task, episode.query.x, episode.query.context)


def hypertransformer_parts(config, episode, learner):
  """{name: timing.Row} of the parts of one update of one episode."""
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
    z = weight_generator.block(s).apply(
      {'params': cnn_of(task)[f'block{index}']}, z
    )
  inputs['head'] = z

  def shared(params, x):
    net = weight_generator.shared_features(s)
    return net.apply({'params': params['shared']['features']}, x)

  def features(params, inputs):
    found = {}
    for name, z in inputs.items():
      if f'{name}_features' in written:
        own = {'params': params['writer'][f'{name}_features']}
        found[name] = weight_generator.layer_features(s, name, z).apply(own, z)
    return found

  def encoders(params, sequences):
    return {
      name: weight_generator.encoder(s, name).apply(
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
  cnn = lambda task, x: episode_network.embed(s, task, x)
  parts = {'cnn': (cnn, cnn_of(task), images)}
  if s.features:
    parts['layer features'] = (features, params, inputs)
  if s.generator == 'joint' and not s.decoder:
    parts['encoders'] = (encoders, params, sequences)
  if s.shared != 'none':
    parts['shared features'] = (shared, params, inputs['block0'])
  precision = config.matmul_precision
  return {f'part {k}': _with_gradients(precision, *v) for k, v in parts.items()}


def _with_gradients(precision, function, params, x):
  """The row of a sum over what `function` returns, with its gradients."""
  total = lambda params, x: sum(
    jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(function(params, x))
  )
  run = jax.value_and_grad(total, (0, 1))
  run = jax.jit(train_step.at_precision(run, precision))
  work = flops.count(run, params, x)
  return timing.Row(1, lambda: run(params, x), work)


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
  if min(*batches, *calls, values.repeats, values.devices) < 1:
    raise core.BadInput(
      '--batches and --calls take numbers like 1,16, --repeats and --devices '
      f'one, all at least 1, not {values.batches}, {values.calls}, '
      f'{values.repeats} and {values.devices}'
    )
  before = timing.read_lines(values.compare)
  cli.set_up(several=True, cpu_devices=values.devices)
  with distributed.guarded():
    _print(config, (batches, calls), values, before)


def _print(config, sizes, values, before):
  rows, episode, learner = updates(config, *sizes)
  alone = jax.device_count() == 1
  parts = config.learner.name == 'hypertransformer' and alone
  if parts and config.learner.stage == 'all':
    rows.update(hypertransformer_parts(config, episode, learner))
  rules = f'{config.episode.way}-way {config.episode.shot}-shot'
  about = {
    'config': f'{config.learner.name} on {config.data.dataset}, {rules}',
    'precision': config.matmul_precision,
    'devices': jax.device_count(),
    'processes': jax.process_count(),
  }
  lines = timing.measure(
    rows, values.repeats, precision=config.matmul_precision
  )
  if not distributed.is_first():
    return
  for line in lines:
    line = timing.against({**about, **line}, before)
    sys.stdout.write(json.dumps(line) + '\n')


if __name__ == '__main__':
  config_flags.DEFINE_config_file('config', None, 'configs/NAME.py[:variant].')
  flags.mark_flag_as_required('config')
  flags.DEFINE_list('batches', ['1', '16'], 'Episodes an update, several.')
  flags.DEFINE_list('calls', ['1'], 'Updates in one dispatch, several.')
  flags.DEFINE_integer('repeats', 5, 'Times that each row is timed.')
  flags.DEFINE_integer('devices', 1, 'Of the CPU, which share its cores.')
  flags.DEFINE_string('compare', '', 'Lines that an earlier call has printed.')
  cli.run(main)
