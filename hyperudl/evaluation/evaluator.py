"""Evaluates parameters on fixed episodes and summarises their metrics."""

from collections.abc import Callable
from collections.abc import Sequence
from typing import Any
import zlib

import jax
import jax.numpy as jnp
import numpy as np

from hyperudl import core
from hyperudl.core import distributed
from hyperudl.core.config import ConfigDict
from hyperudl.data import episodes
from hyperudl.data.episodes import groups as groups_lib
from hyperudl.data.language import task_set
from hyperudl.evaluation import calibration
from hyperudl.evaluation import resources as resources_lib
from hyperudl.evaluation import statistics
from hyperudl.ops import losses
from hyperudl.training import setup
from hyperudl.training import train_step

EVAL_KEY = 7  # folded into episode keys for the learner's own randomness

Metrics = dict[str, np.ndarray]  # name -> [episodes, ...]
# What an episode is, not how well it went.
_NO_METRICS = ('episode', 'family', 'group', 'alphabet')


def pixel_nearest_neighbour(episode: core.Episode) -> jax.Array:
  """Return the accuracy of the nearest labelled image by cosine of the pixels.

  The baseline that any learner must beat on the same episode: f32[].
  """
  flat = lambda x: losses.unit(x.reshape(x.shape[0], -1))
  support, query = episode.support, episode.query
  similarity = flat(query.x) @ flat(support.x).T
  similarity = jnp.where(support.y >= 0, similarity, -jnp.inf)
  predictions = support.y[jnp.argmax(similarity, axis=1)]
  correct = jnp.sum(predictions == query.y)
  return correct / jnp.maximum(jnp.sum(query.y >= 0), 1)


def fingerprint(query_rows: np.ndarray, query_y: np.ndarray) -> int:
  """Return a checksum of an episode's queries: which images, which labels.

  Results of two models may be paired where these agree.

  Args:
    query_rows: int[...], rows of the data set.
    query_y: int[...], labels.
  """
  stacked = np.stack([query_rows, query_y]).astype('<i8')
  return zlib.crc32(stacked.tobytes())


_pixel_accuracies = jax.jit(jax.vmap(pixel_nearest_neighbour))


class Evaluator:
  """Evaluates parameters on the fixed episodes of one split."""

  def __init__(
    self,
    config: ConfigDict,
    split: str,
    count: int,
    resources: resources_lib.Resources | None = None,
  ):
    """Load the data of `split`; nothing is compiled yet.

    Args:
      config: of the run, with overrides applied.
      split: 'train', 'valid', 'test' or 'all'.
      count: number of episodes.
      resources: shared with other evaluators, by default its own.

    Raises:
      core.BadInput: if the data cannot fill the config's episodes.
    """
    setup.check(config)
    self.config, self.split, self.count = config, split, count
    self._resources = resources or resources_lib.Resources()
    self._programs = self._resources.programs(config)
    data = self._dataset = self._resources.dataset(config, split)
    if isinstance(data, task_set.TaskSet):
      tasks = len(data.names)  # each is taken once
      self.count = min(count, -(-tasks // max(config.episode.tasks, 1)))
    self._draw = self.make_draw(config)
    devices = self._resources.mesh.size if self._resources.mesh else 1
    size = min(config.eval.batch, self.count)
    self._size = -(-size // devices) * devices  # episodes of a call

  @property
  def on_features(self) -> bool:
    """Whether the data set has features in place of images."""
    return self._resources.has_features(self.config, self.split)

  def make_draw(self, config: ConfigDict) -> Callable:
    """Return the function that draws other episodes of the same data.

    Args:
      config: with the `episode` and `data` sections of these episodes.

    Raises:
      core.BadInput: if the data cannot fill the config's episodes.
    """
    return self._resources.draw(config, self.split)

  def batch(
    self, start: int, count: int, draw: Callable | None = None
  ) -> tuple[core.Episode, jax.Array]:
    """Draw episodes start .. start + count - 1 and the learner's keys.

    Args:
      start: of the first episode.
      count: number of episodes.
      draw: (keys, episode numbers) -> episodes, in place of the config's.
    """
    keys = episodes.eval_keys(self.split, start, count)
    fold = jax.vmap(lambda key: jax.random.fold_in(key, EVAL_KEY))
    return (draw or self._draw)(keys, start + jnp.arange(count)), fold(keys)

  def _local_batch(self, start, draw=None):
    """Draw this process's part of the episodes of the call that begins there.

    It is always a full one, so that one program serves; extra episodes are cut.
    """
    rows = distributed.local_slice(self._size)
    return self.batch(start + rows.start, rows.stop - rows.start, draw)

  def param_shapes(self) -> core.PyTree:
    """Return the shapes of the learner's parameters for these episodes."""
    first = lambda tree: jax.tree.map(lambda leaf: leaf[0], tree)
    episode, key = jax.eval_shape(first, self._local_batch(0))
    try:
      return self._programs.init.eval_shape(key, episode)
    except (TypeError, ValueError) as error:
      raise core.BadInput(
        f'learner {self.config.learner.name!r} cannot run on these '
        f'episodes: {error}'
      ) from error

  def run(
    self,
    params: core.PyTree,
    stop: Any = (),
    draw: Callable | None = None,
  ) -> Metrics | None:
    """Compute the metrics of every episode.

    Episodes are divided over the devices of all processes, and all processes
    get the result.

    Args:
      params: of the learner.
      stop: becomes true when the evaluation should end; then None is returned.
      draw: as in `batch`.
    """
    parts, mesh = [], self._resources.mesh
    params = train_step.place(params, mesh)
    for start in range(0, self.count, self._size):
      if distributed.any_process(stop):
        return None
      batch, keys = self._local_batch(start, draw)
      inputs = distributed.to_global_arrays((batch, keys), mesh)
      metrics = {**self._programs.step(params, *inputs)}
      metrics |= self._describe(batch)
      parts.append(distributed.gather_to_host(metrics))
    values = {
      name: np.concatenate([part[name] for part in parts])[: self.count]
      for name in parts[0]
    }
    if 'alphabet' in values:
      names = np.unique(self._dataset.alphabets)
      values['alphabet'] = names[values['alphabet']]
    if 'query_rows' in values:
      rows = zip(values.pop('query_rows'), values['y'])
      values['episode'] = np.array([fingerprint(*each) for each in rows])
    return values

  def _describe(self, batch):
    """Return the queries of each episode, its baseline and its groups."""
    values = {'y': batch.query.y}
    extra = batch.extra or {}
    names = ['query_rows', 'family']
    if not self.config.episode.tasks:
      names.append('group')
      if 'family' in extra:
        values['accuracy_pixels'] = _pixel_accuracies(batch)
      by_alphabet = self.config.episode.group == 'alphabet'
      if by_alphabet and 'class_ids' in extra:
        number = jnp.asarray(groups_lib.numbers(self._dataset))
        values['alphabet'] = number[extra['class_ids'][:, 0]]
    return values | {name: extra[name] for name in names if name in extra}

  def visuals(self, params: core.PyTree) -> tuple[core.Episode, Metrics]:
    """Return the first episode and the metrics of it that are drawn."""
    return self._first(params, self._programs.visual_step)

  def first_metrics(self, params: core.PyTree) -> Metrics:
    """Return the metrics of the first episode."""
    return self._first(params, self._programs.single_step)[1]

  def _first(self, params, step):
    batch, keys = jax.tree.map(lambda leaf: leaf[:1], self._local_batch(0))
    pair = batch, step(params, batch, keys)
    return jax.tree.map(lambda leaf: np.asarray(leaf[0]), pair)


def summarise(
  config: ConfigDict, values: Metrics, on_features: bool = False
) -> dict[str, Any]:
  """Return one row of means and half widths of 95% intervals over episodes.

  Args:
    config: of the run.
    values: from `Evaluator.run`.
    on_features: whether the data set has features in place of images.

  Returns:
    The result line: fractions, `<name>` and `<name>_ci95`; `ece` is the
    expected calibration error of all queries together. Where episodes come in
    groups (wordings of one question), intervals are over groups. With
    episode.group='alphabet' there is also `accuracy/<alphabet>` of the episodes
    of each.
  """
  row = {'episodes': len(values['accuracy'])}
  groups = values.get('group')
  if groups is not None:
    row['groups'] = len(np.unique(groups))
  for name, array in values.items():
    if array.ndim == 1 and name not in _NO_METRICS:
      row[name], row[f'{name}_ci95'] = statistics.mean_ci95(array, groups)
  for alphabet in np.unique(values.get('alphabet', ())):
    name, drawn = f'accuracy/{alphabet}', values['alphabet'] == alphabet
    if drawn.sum() > 1:
      interval = statistics.mean_ci95(values['accuracy'][drawn])
      row[name], row[f'{name}_ci95'] = interval
  if 'probabilities' in values and not config.episode.tasks:
    p = values['probabilities'].reshape(-1, values['probabilities'].shape[-1])
    y = values['y'].reshape(-1)
    row['ece'] = calibration.expected_calibration_error(p[y >= 0], y[y >= 0])
  return row | conditions(config, on_features)


def conditions(config: ConfigDict, on_features: bool = False) -> dict[str, Any]:
  """Return the fields of a result line that say how it was measured."""
  data = config.data
  return {
    'transductive': is_transductive(config, on_features),
    'shift': data.shift,
    'proportions': config.episode.proportions,
    'support_query': data.support_query,
    'augment': data.augment if data.augment_tests else 'none',
  }


def is_transductive(config: ConfigDict, on_features: bool = False) -> bool:
  """Return whether a prediction may depend on the other queries.

  Networks of features have no norms, so `learner.norm` does not matter there.
  """
  learner = config.learner.to_dict()
  if config.episode.transductive:
    return True
  if learner.get('stage') == 'shared':  # of the HyperTransformer
    return learner['shared'].endswith('-bn')
  own = learner.get('query_statistics') == 'queries'  # of udl
  return own or (learner.get('norm') == 'batch' and not on_features)


def ensemble(runs: Sequence[Metrics]) -> Metrics:
  """Return the metrics of the mean of several checkpoints' probabilities.

  Args:
    runs: results of `Evaluator.run` on the same episodes.
  """
  p = np.mean([run['probabilities'] for run in runs], axis=0)
  y = runs[0]['y']
  query_mask = y >= 0
  count = np.maximum(query_mask.sum(axis=-1), 1)
  p_label = np.take_along_axis(p, np.maximum(y, 0)[..., None], axis=-1)[..., 0]
  nll = -np.log(np.maximum(p_label, 1e-12))
  # The same in all runs.
  shared = ('accuracy_pixels', *_NO_METRICS, 'y')
  return {
    'accuracy': (p.argmax(axis=-1) == y).sum(axis=-1) / count,
    'nll': (nll * query_mask).sum(axis=-1) / count,
    'probabilities': p,
    **{name: runs[0][name] for name in shared if name in runs[0]},
  }
