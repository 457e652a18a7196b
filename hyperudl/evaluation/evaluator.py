"""Evaluation on fixed episodes, and what is said of it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from hyperudl import core
from hyperudl.core import config as config_lib
from hyperudl.core import distributed
from hyperudl.data import episodes
from hyperudl.data.language import task_set
from hyperudl.evaluation import calibration
from hyperudl.evaluation import statistics
from hyperudl.ops import losses
from hyperudl.storage import filesystem
from hyperudl.training import episode_batching
from hyperudl.training import runs
from hyperudl.training import train_step

EVAL_KEY = 7  # folded into episode keys for the learner's own randomness


def pixel_nearest_neighbour(episode):
  """Accuracy of the nearest labelled image by cosine of the pixels: f32[].

  The floor that any learner must beat, on the same episode.
  """
  flat = lambda x: losses.unit(x.reshape(x.shape[0], -1))
  support, query = episode.support, episode.query
  likeness = flat(query.x) @ flat(support.x).T
  likeness = jnp.where(support.y >= 0, likeness, -jnp.inf)
  answer = support.y[jnp.argmax(likeness, axis=1)]
  return jnp.sum(answer == query.y) / jnp.maximum(jnp.sum(query.y >= 0), 1)


class Evaluator:
  """Evaluates parameters on the fixed episodes of one split."""

  def __init__(self, config, split, count):
    """Loads the data of `split` and compiles nothing yet.

    Args:
      config: of the run, with overrides applied.
      split: one of SPLITS.
      count: number of episodes.

    Raises:
      core.BadInput: if the data cannot fill the config's episodes.
    """
    config_lib.validate(config)
    self.config, self.split, self.count = config, split, count
    learner = runs.make_learner(config)
    self._dataset = runs.load_data(config, split)
    if isinstance(self._dataset, task_set.TaskSet):
      # Each task once, in an order that is no order of their kinds.
      tasks = len(self._dataset.names)
      group = max(config.episode.tasks, 1)
      self.count = min(count, -(-tasks // group))
      order = np.random.default_rng(2023).permutation(tasks)
      self._dataset = task_set.reordered(self._dataset, order)
    self.draw = self.make_draw(config)
    self._mesh = (
      episode_batching.make_mesh() if jax.device_count() > 1 else None
    )
    make_step = functools.partial(
      train_step.make_eval_step, learner, precision=config.matmul_precision
    )
    self._spread = make_step(mesh=self._mesh)
    self.step = make_step()  # on one device, any number
    self.look = make_step(visuals=True)
    self.pixels = jax.jit(jax.vmap(pixel_nearest_neighbour))

  def make_draw(self, config):
    """As `episodes.make_draw` for the split's data.

    Raises:
      core.BadInput: if the data cannot fill the config's episodes.
    """
    episodes.check_fits(config, self._dataset, self.split)
    others = None
    if config.episode.emit_from != 'own':
      others = runs.load_data(config, 'train')
    return episodes.make_draw(config, self._dataset, train=False, others=others)

  def batch(self, start, count):
    """Episodes start .. start + count - 1 and the learner's keys."""
    keys = episodes.eval_keys(self.split, start, count)
    fold = jax.vmap(lambda key: jax.random.fold_in(key, EVAL_KEY))
    numbers = start + jnp.arange(count)
    return self.draw(keys, numbers), fold(keys)

  def run(self, params, stop=()):
    """Metrics of every episode: dict name -> numpy [episodes, ...].

    Episodes are divided over the devices of all processes; all get the result.

    Args:
      params: of the learner.
      stop: turns true when to give up; then the result is None.
    """
    devices = self._mesh.size if self._mesh else 1
    size = min(self.config.eval.batch, self.count)
    size = -(-size // devices) * devices
    parts, share = [], distributed.share(size)
    params = train_step.place(params, self._mesh)
    for start in range(0, self.count, size):
      if distributed.any_of(stop):
        return None
      # Always a full batch, so that one program serves; the rest is cut.
      batch, keys = self.batch(start + share.start, share.stop - share.start)
      inputs = distributed.spread((batch, keys), self._mesh)
      values = dict(self._spread(params, *inputs))
      if not self.config.episode.tasks:
        values['accuracy_pixels'] = self.pixels(batch)
      values['family'] = batch.extra['family']
      if 'group' in batch.extra and not self.config.episode.tasks:
        values['group'] = batch.extra['group']
      values['y'] = batch.query.y
      parts.append(distributed.gather(values))
    return {
      name: np.concatenate([part[name] for part in parts])[: self.count]
      for name in parts[0]
    }

  def visuals(self, params):
    """(the first episode, what the learner has to show of it)."""
    return self._first(params, self.look)

  def numbers(self, params):
    """(the first episode, its metrics)."""
    return self._first(params, self.step)

  def _first(self, params, step):
    batch, keys = self.batch(0, 1)
    values = step(params, batch, keys)
    first = lambda tree: jax.tree.map(lambda leaf: np.asarray(leaf[0]), tree)
    return first(batch), first(values)


def summarise(config, values):
  """One row of means and half widths of 95% intervals over episodes.

  Args:
    config: of the run.
    values: from `Evaluator.run`.

  Returns:
    dict for the result line: fractions, `<name>` and `<name>_ci95`; `ece` is
    the expected calibration error of all queries together. Where episodes
    come in groups (wordings of one question), intervals are over groups.
  """
  row = {'episodes': len(values['accuracy'])}
  groups = values.get('group')
  if groups is not None:
    row['groups'] = len(np.unique(groups))
  for name, array in values.items():
    if array.ndim == 1 and name not in ('family', 'group'):
      row[name], row[f'{name}_ci95'] = statistics.mean_ci95(array, groups)
  if 'probabilities' in values and not config.episode.tasks:
    p = values['probabilities'].reshape(-1, values['probabilities'].shape[-1])
    y = values['y'].reshape(-1)
    p, y = p[y >= 0], y[y >= 0]
    row['ece'] = calibration.expected_calibration_error(p, y)
  return row | conditions(config)


def conditions(config):
  """What a result line says of how it was measured."""
  data = config.data
  return {
    'transductive': is_transductive(config),
    'shift': data.shift,
    'proportions': config.episode.proportions,
    'support_query': data.support_query,
    'augment': data.augment if data.augment_tests else 'none',
  }


def is_transductive(config):
  """Whether the answer to a query may depend on the other queries."""
  learner = config.learner.to_dict()
  if config.episode.transductive:
    return True
  if learner.get('stage') == 'shared':  # of the HyperTransformer
    return learner['shared'].endswith('-bn')
  return learner.get('norm') == 'batch'


def ensemble(runs):
  """Metrics of the mean of several checkpoints' probabilities.

  Args:
    runs: list of results of `Evaluator.run` on the same episodes.
  """
  p = np.mean([run['probabilities'] for run in runs], axis=0)
  y = runs[0]['y']
  asked = y >= 0
  count = np.maximum(asked.sum(axis=-1), 1)
  right = np.take_along_axis(p, np.maximum(y, 0)[..., None], axis=-1)[..., 0]
  nll = -np.log(np.maximum(right, 1e-12))
  # Of the episodes alone.
  shared = ('accuracy_pixels', 'family', 'group', 'y')
  return {
    'accuracy': (p.argmax(axis=-1) == y).sum(axis=-1) / count,
    'nll': (nll * asked).sum(axis=-1) / count,
    'probabilities': p,
    **{name: runs[0][name] for name in shared if name in runs[0]},
  }


def template(evaluator):
  """Shapes of the learner's parameters for the evaluator's episodes."""
  batch, keys = evaluator.batch(0, 1)
  episode = jax.tree.map(lambda leaf: leaf[0], batch)
  learner = runs.make_learner(evaluator.config)
  try:
    return jax.eval_shape(learner.init, keys[0], episode)
  except (TypeError, ValueError) as error:
    raise core.BadInput(
      f'learner {evaluator.config.learner.name!r} cannot run on these '
      f'episodes: {error}'
    ) from error


def fit(raw, shapes, step):
  """Parameters of a restored state in the structure of `shapes`.

  Raises:
    core.BadInput: if the learner as now configured has other parameters.
  """
  leaves = filesystem.name_leaves(raw['params'])
  problem = filesystem.mismatch(leaves, filesystem.name_leaves(shapes))
  if problem:
    raise core.BadInput(
      f'step {step} does not fit the learner with these overrides: '
      f'{problem}; some learners cannot change way or image size'
    )
  return filesystem.fill(shapes, leaves)
