"""Measures calibration, and uncertainty at classes not in the support.

Each episode is drawn with twice its classes. Half of them are in the support;
their queries are *inside*. Queries of the other half are *outside*: no
prediction is correct for them, so a good learner is uncertain. The temperature
of `nll_scaled` and the like is fitted on episodes of `valid` of the run's own
data set, whatever set is reported (Guo et al. 2017, arXiv:1706.04599). With
norm='batch' inside and outside queries are normalised apart, each by its own
statistics.
"""

from collections.abc import Mapping
import os
from typing import Any

from absl import logging
import jax
import jax.numpy as jnp
import numpy as np
from scipy import special

from hyperudl import core
from hyperudl.core.config import ConfigDict
from hyperudl.evaluation import calibration
from hyperudl.evaluation import evaluator as evaluator_lib
from hyperudl.evaluation import resources as resources_lib
from hyperudl.evaluation import runner
from hyperudl.evaluation import statistics
from hyperudl.storage import checkpoints
from hyperudl.storage import metrics
from hyperudl.storage.filesystem import StrPath
from hyperudl.training import setup

Sides = Mapping[str, evaluator_lib.Metrics]  # of 'inside' and 'outside' queries

# Fields of `config.episode` with the value that halving needs.
_REQUIRED = {
  'tasks': 0,
  'unlabelled': 0,
  'proportions': 'balanced',
  'transductive': False,
  'inner_data': 'true',
  'cond_data': 'true',
  'emit_from': 'own',
}


def halve(episode: core.Episode, way: int) -> tuple[core.Episode, core.Episode]:
  """Divide an episode of 2N classes into two that share one support.

  Args:
    episode: one task with as many rows of each class.
    way: N.

  Returns:
    (inside, outside) with the support rows of the classes below N; queries of
    these classes, and of the others with labels 0. `extra` keeps `query_rows`.
  """
  support, query = episode.support, episode.query
  pick = lambda part, rows: core.Examples(part.x[rows], part.y[rows])
  halves = lambda y: jnp.split(jnp.argsort(y >= way, stable=True), 2)
  support = pick(support, halves(support.y)[0])
  rows_of = episode.extra['query_rows']
  pair = [
    core.Episode(support, pick(query, rows), {'query_rows': rows_of[rows]})
    for rows in halves(query.y)
  ]
  outside = pair[1].query
  outside = outside._replace(y=jnp.zeros_like(outside.y))
  return pair[0], pair[1]._replace(query=outside)


def check(config: ConfigDict) -> None:
  """Raise core.BadInput where episodes cannot be halved."""
  if 'language' in config:
    raise core.BadInput('--uncertainty takes images, not tasks with language')
  for field, value in _REQUIRED.items():
    if config.episode[field] != value:
      raise core.BadInput(
        '--uncertainty takes episodes of one task with labelled images alone '
        f'and balanced classes: set --config.episode.{field}={value}, not '
        f'{config.episode[field]}, and --tag=NAME'
      )
  if config.data.support_query == 'joint':
    raise core.BadInput(
      '--uncertainty takes as many rows of each class, and '
      "data.support_query='joint' draws other numbers: set "
      '--config.data.support_query=disjoint and --tag=NAME'
    )


def evaluate_sides(
  checkpoint: checkpoints.Checkpoint,
  config: ConfigDict,
  split: str,
  stop: Any = (),
  resources: resources_lib.Resources | None = None,
) -> Sides | None:
  """Compute the metrics of inside and outside queries of a checkpoint.

  Args:
    checkpoint: restored as nested dicts.
    config: of the run, with overrides applied.
    split: of the data.
    stop: becomes true when the evaluation should end; then None is returned.
    resources: shared with other evaluations in this process.

  Raises:
    core.BadInput: for a setting that `check` refuses or too few classes.
  """
  check(config)
  count = config.eval.episodes
  evaluator = evaluator_lib.Evaluator(config, split, count, resources)
  way = config.episode.way
  wide = config.copy_and_resolve_references()
  with wide.unlocked():
    wide.episode.way = 2 * way
  draw_wide = evaluator.make_draw(wide)
  halves = jax.jit(jax.vmap(lambda episode: halve(episode, way)))
  params = setup.fit_params(checkpoint, evaluator.param_shapes())
  sides = {}
  for index, name in enumerate(('inside', 'outside')):
    draw = lambda *args, index=index: halves(draw_wide(*args))[index]
    sides[name] = evaluator.run(params, stop, draw)
  return None if None in sides.values() else sides


def scores(values: evaluator_lib.Metrics) -> evaluator_lib.Metrics:
  """Return the uncertainty scores f[episodes, queries] by name."""
  named = {'entropy': calibration.entropy(values['probabilities'])}
  if 'disagreement' in values:
    named['disagreement'] = values['disagreement']
  return named


def fit_temperature(sides: Sides) -> float:
  """Return the temperature of inside predictions, to be used on other tasks."""
  p = sides['inside']['probabilities']
  y = sides['inside']['y'].reshape(-1)
  return calibration.fit_temperature(_logits(p.reshape(-1, p.shape[-1])), y)


def summarise(sides: Sides, temperature: float) -> dict[str, Any]:
  """Return one row of means with 95% intervals.

  Args:
    sides: from `evaluate_sides`.
    temperature: from `fit_temperature` on other tasks.

  Returns:
    accuracy, nll, brier with 95% intervals over episodes, ece with a bootstrap
    one; the same but accuracy with `_scaled` after division by the
    temperature; mean `entropy_inside`, `entropy_outside`, and `auroc_entropy`,
    how well entropy separates outside from inside queries of one episode; the
    same of `disagreement` (mutual information of prediction and model) for
    learners that have it.
  """
  inside, y = sides['inside'], sides['inside']['y']
  row = {'episodes': len(y), 'temperature': float(temperature)}
  values = {'accuracy': inside['accuracy']}
  p = inside['probabilities']
  scaled = special.softmax(_logits(p) / temperature, axis=-1)
  for suffix, predictions in (('', p), ('_scaled', scaled)):
    for name in ('nll', 'brier'):
      score = getattr(calibration, name)
      values[f'{name}{suffix}'] = np.array(
        [score(*pair) for pair in zip(predictions, y)]
      )
    row[f'ece{suffix}'], row[f'ece{suffix}_ci95'] = ece_ci95(predictions, y)
  outside_scores = scores(sides['outside'])
  for name, score in scores(inside).items():
    other = outside_scores[name]
    values[f'{name}_inside'] = score.mean(axis=1)
    values[f'{name}_outside'] = other.mean(axis=1)
    values[f'auroc_{name}'] = np.array(
      [calibration.auroc(*pair) for pair in zip(score, other)]
    )
  for name, array in values.items():
    row[name], row[f'{name}_ci95'] = statistics.mean_ci95(array)
  return row


def ece_ci95(
  p: np.ndarray, y: np.ndarray, draws: int = 200
) -> tuple[float, float]:
  """Return the ECE of all queries and the half width of its 95% interval.

  Args:
    p: f[episodes, queries, N].
    y: i[episodes, queries].
    draws: of the bootstrap over episodes.
  """
  flat = lambda rows: (p[rows].reshape(-1, p.shape[-1]), y[rows].reshape(-1))
  error = lambda rows: calibration.expected_calibration_error(*flat(rows))
  rng = np.random.default_rng(0)
  rows = [rng.integers(0, len(p), len(p)) for _ in range(draws)]
  low, high = np.percentile([error(r) for r in rows], [2.5, 97.5])
  return error(slice(None)), float(high - low) / 2


def arrays(sides: Sides) -> evaluator_lib.Metrics:
  """Return what `plots --kind=uncertainty` draws, for the result's npz file."""
  kept = ('probabilities', 'y', 'episode')
  inside = sides['inside']
  named = {key: inside[key] for key in kept if key in inside}
  for side, values in sides.items():
    named |= {f'{k}_{side}': score for k, score in scores(values).items()}
  return named


def evaluate_once(
  workdir: StrPath,
  request: runner.Request,
  stop: Any = (),
  resources: resources_lib.Resources | None = None,
) -> dict[str, Any] | None:
  """Evaluate queries of classes in the support and of others; append a line.

  Args:
    workdir: of the run.
    request: with `uncertainty`; its step is no ensemble.
    stop: becomes true when the evaluation should end.
    resources: shared with other evaluations in this process.

  Returns:
    The row, or None if it was stopped.
  """
  metrics.evaluation_path(workdir, request.name)  # refuse a bad name now
  config, split, step = request.config, request.split, request.step
  trained = _with_training_data(workdir, config)
  check_request(workdir, request)
  resources = resources or resources_lib.Resources()
  checkpoint = resources.checkpoint(workdir, step)
  target = stop, resources
  valid = evaluate_sides(checkpoint, trained, 'valid', *target)
  sides = valid and evaluate_sides(checkpoint, config, split, *target)
  if not sides:
    return None
  row = summarise(sides, fit_temperature(valid))
  row['dataset'] = config.data.dataset
  row['temperature_from'] = trained.data.dataset
  on_features = resources.has_features(config, split)
  row |= evaluator_lib.conditions(config, on_features)
  row |= runner.provenance(workdir, config, step, split)
  step = checkpoint.step
  logging.info('%s', runner.format_row('uncertainty', step, row))
  folder = request.out or workdir
  metrics.write_evaluation(folder, request.name, step, row, arrays(sides))
  return row


def check_request(workdir: StrPath, request: runner.Request) -> None:
  """Refuse a request for uncertainty that cannot be met.

  Raises:
    core.BadInput: for an ensemble, a split of which the temperature would be
      fitted, or a setting that `check` refuses.
  """
  config, split, step = request.config, request.split, request.step
  trained = _with_training_data(workdir, config)
  same = trained.data.dataset == config.data.dataset
  if step == 'best_ensemble' or (same and split in ('valid', 'all')):
    raise core.BadInput(
      '--uncertainty evaluates one step and fits its temperature on valid of '
      f'{trained.data.dataset}, so not --step={step} --split={split}'
    )
  check(config)


def _with_training_data(workdir, config):
  """Return `config` with the data that the run was trained on."""
  trained = config.copy_and_resolve_references()
  data = setup.read_config(workdir).data
  if data.dataset == config.data.dataset:
    return trained
  with trained.unlocked():
    trained.data.update(data)
    if not os.path.isdir(trained.data.dir):
      trained.data.dir = config.data.dir
  return trained


def _logits(p):
  return np.log(np.maximum(np.asarray(p, np.float64), 1e-30))
