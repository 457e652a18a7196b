"""Lists the files of hyperudl that one episode, or a training run, enters.

  python tools/trace_episode.py udl              # any learner with a config
  python tools/trace_episode.py udl:base         # of a variant of its config
  python tools/trace_episode.py protonet-train   # two steps of `train()`

For a learner it traces the first call of `jax.grad` of its loss on one random
episode, from pixels to outer gradient, run abstractly (shapes without numbers)
at the sizes of the tests; for `NAME-train`, `train()` with two steps on the
built-in data. Prints each file in the order of its first call with the number
of function calls in it, then how many files there are and how often two
successive calls are in different files.
"""

import collections
import importlib.util
import pathlib
import sys
import tempfile

import jax
import jax.numpy as jnp

ROOT = pathlib.Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import hyperudl  # noqa: E402
from hyperudl import core  # noqa: E402
from hyperudl import learners  # noqa: E402
from hyperudl.training import trainer  # noqa: E402
from tests.testing import tiny_sizes  # noqa: E402

SIZE = 28  # pixels of an image's side
QUERIES = 5  # per class
UNLABELLED = 5  # per class, with their classes hidden


class Trace:
  """Calls of functions in files of hyperudl, in order."""

  def __init__(self):
    self.calls = []  # file of each call
    self._root = str(pathlib.Path(hyperudl.__file__).parent) + '/'

  def __enter__(self):
    sys.setprofile(self._on_event)
    return self

  def __exit__(self, *unused):
    sys.setprofile(None)

  def _on_event(self, frame, event, unused):
    name = frame.f_code.co_filename
    if event == 'call' and name.startswith(self._root):
      self.calls.append(name.removeprefix(self._root))

  def files(self):
    """Return {file: number of calls} in order of first entry."""
    return dict(collections.Counter(self.calls))

  def changes(self):
    """Return how often two successive calls lie in different files."""
    pairs = zip(self.calls, self.calls[1:])
    return sum(before != after for before, after in pairs)


def read_config(name):
  """Return the config `name` or `name:variant` of configs/."""
  module, _, variant = name.partition(':')
  path = ROOT / 'configs' / f'{module}.py'
  if not path.exists():
    sys.exit(f'there is no {path}; choose a config, or NAME-train')
  spec = importlib.util.spec_from_file_location(module, path)
  file = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(file)
  return file.get_config(variant or None)


def random_episode(way, shot):
  """Return an episode of uniform noise with labels in order."""
  labels = lambda rows: jnp.arange(way * rows) % way
  hidden = labels(UNLABELLED)
  y = jnp.concatenate([labels(shot), jnp.full_like(hidden, -1)])
  keys = jax.random.split(jax.random.key(0), 2)
  draw = lambda key, n: jax.random.uniform(key, (n, SIZE, SIZE, 1))
  query = core.Examples(draw(keys[1], way * QUERIES), labels(QUERIES))
  support = core.Examples(draw(keys[0], len(y)), y)
  return core.Episode(support, query, {'unlabelled_y': hidden})


def trace_learner(name):
  """Trace the gradient of the loss of config `name`, on one episode."""
  config = read_config(name)
  settings = config.learner.to_dict()
  learner_name, way = settings.pop('name'), config.episode.way
  settings |= tiny_sizes.TINY.get(learner_name, {})
  learner = learners.make(learner_name, way, settings)
  episode = random_episode(way, config.episode.shot)
  params = jax.eval_shape(learner.init, jax.random.key(0), episode)
  frozen = {k: v for k, v in params.items() if k == 'frozen'}
  trained = {k: v for k, v in params.items() if k != 'frozen'}
  loss = lambda trained, frozen, episode: learner.loss(
    {**trained, **frozen}, episode, jax.random.key(1), 0
  )
  gradient = jax.grad(loss, has_aux=True)
  with Trace() as trace:
    jax.eval_shape(gradient, trained, frozen, episode)
  return trace


def trace_training(name):
  """Trace two steps of `train()` with config `name`."""
  config = read_config(name).unlock()
  config.steps, config.batch = 2, 2
  with tempfile.TemporaryDirectory() as workdir, Trace() as trace:
    trainer.train(config, workdir)
  return trace


def main(name='udl'):
  if name.endswith('-train'):
    trace = trace_training(name.removesuffix('-train'))
  else:
    trace = trace_learner(name)
  for file, count in trace.files().items():
    print(f'{count:6d}  {file}')
  print(f'{len(trace.files())} files, {trace.changes()} changes of file')


if __name__ == '__main__':
  if len(sys.argv) > 2 or {'-h', '--help'} & set(sys.argv):
    sys.exit(__doc__)
  main(*sys.argv[1:])
