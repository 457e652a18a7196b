"""Does a learner know what it does not know? For `evaluate --uncertainty`.

Each episode is drawn with twice its classes. Half of them are learned from
the support; their queries are *inside*. Queries of the other half are
*outside*: no answer to them is right, so a good learner is unsure. The
temperature of `nll_scaled` and the like is fitted on episodes of `valid` of the
run's own data set, whatever set is reported (Guo et al. 2017,
arXiv:1706.04599). With norm='batch' inside and outside queries are normalised
apart, each by its own statistics.
"""

import os

import jax
import jax.numpy as jnp
import numpy as np

from hyperudl import core
from hyperudl.data import episodes
from hyperudl.evaluation import calibration
from hyperudl.evaluation import evaluator as evaluation
from hyperudl.evaluation import statistics
from hyperudl.storage import metrics
from hyperudl.storage import selection
from hyperudl.training import runs

_PLAIN = {
  'tasks': 0,
  'unlabelled': 0,
  'proportions': 'balanced',
  'transductive': False,
  'inner_data': 'true',
  'cond_data': 'true',
  'emit_from': 'own',
}


def halve(episode, way):
  """An episode of 2N classes as two that share one support.

  Args:
    episode: `core.Episode` of one task with as many rows of each class.
    way: N.

  Returns:
    (inside, outside), `core.Episode`s with the support rows of the classes
    below N; queries of these, and of the others with labels 0.
  """
  support, query = episode.support, episode.query
  pick = lambda part, rows: core.Examples(part.x[rows], part.y[rows])
  halves = lambda y: jnp.split(jnp.argsort(y >= way, stable=True), 2)
  known, _ = halves(support.y)
  inside, outside = halves(query.y)
  support = pick(support, known)
  unknown = pick(query, outside)
  return (
    core.Episode(support, pick(query, inside)),
    core.Episode(support, unknown._replace(y=jnp.zeros_like(unknown.y))),
  )


def check(config):
  """core.BadInput where episodes cannot be halved."""
  for field, value in _PLAIN.items():
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


class Evaluator:
  """Answers to inside and outside queries of the fixed episodes of a split."""

  def __init__(self, config, split, count):
    """Loads the data of `split`.

    Args:
      config: of the run, with overrides applied.
      split: as in `evaluation.Evaluator`.
      count: number of episodes.

    Raises:
      core.BadInput: for a setting that `check` refuses or too few classes.
    """
    check(config)
    self._inner = evaluation.Evaluator(config, split, count)
    wide = config.copy_and_resolve_references()
    with wide.unlocked():
      wide.episode.way = 2 * config.episode.way
    self._draw = self._inner.make_draw(wide)
    self._halve = jax.jit(jax.vmap(lambda e: halve(e, config.episode.way)))
    self.template = evaluation.template(self._inner)

  def run(self, params, stop=()):
    """{'inside': ..., 'outside': ...}, each a dict of numpy [episodes, ...].

    Args:
      params: of the learner.
      stop: turns true when to give up; then the result is None.
    """
    inner, parts = self._inner, {'inside': [], 'outside': []}
    size = min(inner.config.eval.batch, inner.count)
    for start in range(0, inner.count, size):
      if stop:
        return None
      keys = episodes.eval_keys(inner.split, start, size)
      fold = jax.vmap(lambda key: jax.random.fold_in(key, evaluation.EVAL_KEY))
      for name, batch in zip(parts, self._halve(self._draw(keys))):
        values = dict(inner.step(params, batch, fold(keys)))
        values['y'] = batch.query.y
        parts[name].append(jax.device_get(values))
    return {name: _joined(found, inner.count) for name, found in parts.items()}


def _joined(parts, count):
  return {
    name: np.concatenate([part[name] for part in parts])[:count]
    for name in parts[0]
  }


def scores(values):
  """{name: f[episodes, queries]} of what a learner says of its doubt."""
  found = {'entropy': calibration.entropy(values['probabilities'])}
  if 'disagreement' in values:
    found['disagreement'] = values['disagreement']
  return found


def fit_temperature(values):
  """The temperature of inside answers, from `Evaluator.run` on `valid`."""
  p, y = _flat(values['inside'])
  return calibration.fit_temperature(_logits(p), y)


def summarise(values, temperature):
  """One row.

  Args:
    values: from `Evaluator.run`.
    temperature: from `fit_temperature` on other tasks.

  Returns:
    dict: accuracy, nll, brier with 95% intervals over episodes, ece with a
    bootstrap one; the same but accuracy with `_scaled` after division by the
    temperature; mean `entropy_inside`, `entropy_outside`, and `auroc_entropy`,
    how well entropy tells outside from inside queries of one episode; the same
    of `disagreement` (mutual information of answer and model) where there is.
  """
  inside, y = values['inside'], values['inside']['y']
  row = {'episodes': len(y), 'temperature': float(temperature)}
  intervals = {'accuracy': inside['accuracy']}
  p = inside['probabilities']
  scaled = calibration.softmax(_logits(p) / temperature)
  for suffix, answers in (('', p), ('_scaled', scaled)):
    pairs = list(zip(answers, y))
    for name in ('nll', 'brier'):
      score = getattr(calibration, name)
      intervals[f'{name}{suffix}'] = np.array([score(*pair) for pair in pairs])
    row[f'ece{suffix}'], row[f'ece{suffix}_ci95'] = ece_ci95(answers, y)
  known, unknown = scores(inside), scores(values['outside'])
  for name in known:
    intervals[f'{name}_inside'] = known[name].mean(axis=1)
    intervals[f'{name}_outside'] = unknown[name].mean(axis=1)
    intervals[f'auroc_{name}'] = np.array(
      [calibration.auroc(a, b) for a, b in zip(known[name], unknown[name])]
    )
  for name, array in intervals.items():
    row[name], row[f'{name}_ci95'] = statistics.mean_ci95(array)
  return row


def ece_ci95(p, y, draws=200):
  """(ECE of all queries, half width of its 95% bootstrap over episodes).

  Args:
    p: f[episodes, queries, N].
    y: i[episodes, queries].
    draws: of the bootstrap.
  """
  flat = lambda rows: (p[rows].reshape(-1, p.shape[-1]), y[rows].reshape(-1))
  error = lambda rows: calibration.expected_calibration_error(*flat(rows))
  rng = np.random.default_rng(0)
  rows = [rng.integers(0, len(p), len(p)) for _ in range(draws)]
  low, high = np.percentile([error(r) for r in rows], [2.5, 97.5])
  return error(slice(None)), float(high - low) / 2


def arrays(values):
  """What `plots --kind=uncertainty` draws, for the file of the episodes."""
  found = {
    'probabilities': values['inside']['probabilities'],
    'y': values['inside']['y'],
  }
  for side, own in values.items():
    for name, score in scores(own).items():
      found[f'{name}_{side}'] = score
  return found


def evaluate_once(workdir, config, step, split, tag, stop=()):
  """Doubt inside and outside of the classes learned; appends a line.

  Args:
    workdir, config, split, stop: as in `evaluate.evaluate_once`.
    step: 'latest', 'best' or a number.
    tag: '' or what names the overrides; '-uncertainty' is added.

  Returns:
    The row, or None if it was stopped.
  """
  name = f'{tag}-uncertainty-{split}' if tag else f'uncertainty-{split}'
  metrics.evaluation_path(workdir, name)  # a bad name fails now
  own = _own_data(workdir, config)
  same = own.data.dataset == config.data.dataset
  if step == 'best_ensemble' or (same and split in ('valid', 'all')):
    raise core.BadInput(
      '--uncertainty evaluates one step and fits its temperature on valid of '
      f'{own.data.dataset}, so not --step={step} --split={split}'
    )
  raw, number, _ = selection.restore_step(workdir, step)
  results = []
  for one, part in ((own, 'valid'), (config, split)):
    evaluator = Evaluator(one, part, config.eval.episodes)
    params = evaluation.fit(raw, evaluator.template, number)
    results.append(evaluator.run(params, stop))
    if results[-1] is None:
      return None
  temperature = fit_temperature(results[0])
  row = summarise(results[1], temperature)
  row['dataset'] = config.data.dataset
  row['temperature_from'] = own.data.dataset
  row |= evaluation.conditions(config)
  metrics.write_evaluation(workdir, name, number, row, arrays(results[1]))
  return {'step': number, **row}


def _own_data(workdir, config):
  """`config` with the data that the run was trained on."""
  own = config.copy_and_resolve_references()
  data = runs.read_config(workdir).data
  if data.dataset == config.data.dataset:
    return own
  with own.unlocked():
    own.data.update(data)
    if not os.path.isdir(own.data.dir):
      own.data.dir = config.data.dir
  return own


def _logits(p):
  return np.log(np.maximum(np.asarray(p, np.float64), 1e-30))


def _flat(values):
  p = values['probabilities']
  return p.reshape(-1, p.shape[-1]), values['y'].reshape(-1)
