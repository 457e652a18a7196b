"""Evaluates checkpoints of a run, once or as they come, and reports results."""

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import pathlib
import time
from typing import Any
from typing import NamedTuple

from absl import logging

from hyperudl import core
from hyperudl.core import config as config_lib
from hyperudl.core import distributed
from hyperudl.core.config import ConfigDict
from hyperudl.evaluation import evaluator as evaluator_lib
from hyperudl.evaluation import resources as resources_lib
from hyperudl.storage import checkpoints
from hyperudl.storage import filesystem
from hyperudl.storage import metrics
from hyperudl.storage import selection
from hyperudl.storage import tensorboard
from hyperudl.storage.filesystem import StrPath
from hyperudl.training import setup

SPLITS = ('train', 'valid', 'test', 'all')

# Metrics of the printed line: in percent, and as they are.
_PERCENT = (
  *('accuracy', 'accuracy_unadapted', 'gain_step', 'gain_data'),
  'accuracy_pixels',
)
_PLAIN = ('nll', 'ece', 'auroc_entropy')


def format_row(name: str, step: int, row: Mapping[str, Any]) -> str:
  """Return the printed line of a result."""
  parts = [f'{name} step {step}:']
  for key in (*_PERCENT, *(key for key in row if '/' in key), *_PLAIN):
    if key in row and f'{key}_ci95' in row:
      scale, unit = (1, '') if key in _PLAIN else (100, '%')
      mean, half = scale * row[key], scale * row[f'{key}_ci95']
      parts.append(f'{key} {mean:.2f}+-{half:.2f}{unit}')
  return '  '.join(parts) + f'  ({row["episodes"]} episodes)'


def _report(workdir, name, step, row, values, save_predictions):
  """Print the line of a result, and write it with its episodes' numbers."""
  logging.info('%s', format_row(name, step, row))  # shown, whatever the disk
  hidden = () if save_predictions else ('probabilities', 'y')
  arrays = {key: values[key] for key in values if key not in hidden}
  metrics.write_evaluation(workdir, name, step, row, arrays)


class Request(NamedTuple):
  """One evaluation of a checkpoint of a run, which is written as one result."""

  config: ConfigDict  # of the run, with overrides applied
  # 'latest', 'best', 'best_ensemble' (its line has the best) or a number.
  step: str = 'latest'
  split: str = 'test'  # one of SPLITS
  tag: str = ''  # name of the overrides
  save_predictions: bool = False  # keep the probabilities of every query
  uncertainty: bool = False  # evaluate calibration and unknown classes instead
  out: StrPath = ''  # folder for the results in place of the workdir

  @property
  def name(self) -> str:
    """The name of the result, as in `eval/NAME.jsonl`."""
    parts = self.tag, 'uncertainty' * self.uncertainty, self.split
    return '-'.join(part for part in parts if part)


def evaluate_once(
  workdir: StrPath,
  request: Request,
  stop: Any = (),
  resources: resources_lib.Resources | None = None,
) -> dict[str, Any] | None:
  """Evaluate one checkpoint and append a line.

  Args:
    workdir: of the run.
    request: without `uncertainty`.
    stop: becomes true when the evaluation should end.
    resources: shared with other evaluations in this process.

  Returns:
    The row, metrics and `provenance`, or None if it was stopped.
  """
  metrics.evaluation_path(workdir, request.name)  # refuse a bad name now
  config, split, step = request.config, request.split, request.step
  resources = resources or resources_lib.Resources()
  target = config, split, config.eval.episodes, resources
  evaluator = distributed.run_on_all(lambda: evaluator_lib.Evaluator(*target))
  is_ensemble = step == 'best_ensemble'
  steps, results = _run_steps(workdir, evaluator, step, stop, resources)
  if None in results:
    return None
  values = evaluator_lib.ensemble(results) if is_ensemble else results[0]
  row = evaluator_lib.summarise(config, values, evaluator.on_features)
  row |= provenance(workdir, config, step, split)
  if is_ensemble:
    row['ensemble'] = steps
    logging.info(
      'best_ensemble: the mean of %d checkpoints, %s; eval.keep_best = %d',
      *(len(steps), steps, config.eval.keep_best),
    )
  target = request.out or workdir, request.name, steps[0], row, values
  distributed.run_on_primary(lambda: _report(*target, request.save_predictions))
  return row


def _run_steps(workdir, evaluator, step, stop, resources):
  """Return (steps, [metrics of each]), several for 'best_ensemble'."""
  shapes = evaluator.param_shapes()
  names = [step]
  if step == 'best_ensemble':
    if tasks := evaluator.config.episode.tasks:
      raise core.BadInput(
        '--step=best_ensemble averages predictions of one task, and this run '
        f'has sequences of {tasks}: choose best or a number'
      )
    names = selection.best_steps(workdir) or ['best']
  distributed.assert_equal_across_processes(
    len(names), 'the checkpoints to evaluate'
  )
  steps, results = [], []
  for name in names:
    checkpoint = resources.checkpoint(workdir, name)
    distributed.assert_equal_across_processes(
      checkpoint.step, f'the checkpoint that they read as {name!r}'
    )
    params = setup.fit_params(checkpoint, shapes)
    results.append(evaluator.run(params, stop))
    steps.append(checkpoint.step)
    if results[-1] is None:
      break
  return steps, results


def poll(
  workdir: StrPath,
  splits: Sequence[str],
  save_predictions: bool = False,
  stop: Any = (),
  adjust: Callable[[ConfigDict], ConfigDict] = lambda config: config,
  show_features: Callable | None = None,
) -> None:
  """Evaluate every new checkpoint until the trainer is done.

  Args:
    workdir: of the run; it may not exist yet.
    splits: which to evaluate; the best by 'valid' are saved in `best/`.
    save_predictions: keep the probabilities of every query.
    stop: becomes true when the evaluation should end.
    adjust: config of the run -> config to evaluate with.
    show_features: (writer, step, episode, visuals, metrics), draws the
      features of an episode in TensorBoard.
  """
  path = pathlib.Path(workdir)
  while not (path / 'config.json').exists() and not stop:
    time.sleep(0.5)
  if stop:
    return
  with filesystem.acquire_lock(workdir, '.evaluator.lock'):
    config = adjust(setup.read_config(workdir))
    count, resources = config.eval.episodes, resources_lib.Resources()
    evaluators = [
      evaluator_lib.Evaluator(config, split, count, resources)
      for split in splits
    ]
    shapes = evaluators[0].param_shapes()
    done = set.intersection(
      *(metrics.evaluated_steps(workdir, split) for split in splits)
    )
    ended = (path / 'DONE').exists
    new = selection.poll(workdir, None, ended, lambda: bool(stop), done)
    writer = tensorboard.open_writer(workdir, 'eval')
    try:
      for checkpoint in new:
        step, params = checkpoint.step, setup.fit_params(checkpoint, shapes)
        _show(writer, step, evaluators[-1], params, show_features)
        for evaluator in evaluators:
          target = (workdir, writer, evaluator, checkpoint, params)
          if _evaluate_new(*target, save_predictions, stop) is None:
            return
    finally:
      tensorboard.close_writer(writer)


def _evaluate_new(
  workdir, writer, evaluator, checkpoint, params, save_predictions, stop
):
  """Write the result of a checkpoint on a split; return None if stopped."""
  config, split, step = evaluator.config, evaluator.split, checkpoint.step
  if step in metrics.evaluated_steps(workdir, split):
    return {}
  values = evaluator.run(params, stop)
  if values is None:
    return None
  row = evaluator_lib.summarise(config, values, evaluator.on_features)
  row |= provenance(workdir, config, str(step), split)
  # Before the row: a kill in between repeats both, and loses none.
  if split == 'valid':
    policy = checkpoints.Policy.from_config(config)
    selection.keep_best(workdir, checkpoint, row['accuracy'], policy)
  _report(workdir, split, step, row, values, save_predictions)
  numbers = {f'{split}/{k}': v for k, v in row.items() if isinstance(v, float)}
  tensorboard.write_scalars(writer, step, numbers)
  return row


def _show(writer, step, evaluator, params, show_features):
  """Draw an episode and the learner's own visuals in TensorBoard."""
  episode, visuals = evaluator.visuals(params)
  if episode.support.x.ndim == 4:
    for name in ('support', 'query'):
      images = getattr(episode, name).x
      tensorboard.write_images(writer, step, f'episode/{name}', images, 5)
  if show_features and 'points/query' in visuals:
    values = evaluator.first_metrics(params)
    show_features(writer, step, episode, visuals, values)
  for name, value in visuals.items():
    kind, _, title = name.partition('/')
    if kind == 'histogram':
      tensorboard.write_histogram(writer, step, title, value)
    elif kind == 'image':
      images = value.reshape(-1, *value.shape[-3:])
      tensorboard.write_images(writer, step, f'learner/{title}', images, 8)


def provenance(
  workdir: StrPath, config: ConfigDict, step: str, split: str
) -> dict[str, Any]:
  """Return what a result was measured with, for its line.

  Args:
    workdir: of the run.
    config: from `override`.
    step: as given, 'latest' for example.
    split: one of SPLITS.

  Returns:
    split, checkpoint and `overrides`: the fields in which the config differs
    from that of the run, without those that change no result.
  """
  stored = config_lib.flatten(setup.read_config(workdir))
  overrides = {
    name: value
    for name, value in config_lib.flatten(config).items()
    if name not in ('data.dir', 'eval.batch') and stored.get(name) != value
  }
  return {'split': split, 'checkpoint': step, 'overrides': overrides}


def override(
  config: ConfigDict,
  changes: Mapping[str, str],
  options: Mapping[str, Any],
) -> tuple[ConfigDict, str]:
  """Return the run's config with the changes of a command line, and its tag.

  Args:
    config: of the run, from `setup.read_config`.
    changes: {'data.shift': 'none', ...} from --config.x.y=v.
    options: `dataset` and its folder `data_dir`, `way` and `shot` of the
      episodes, `episodes`, their number, and `tag`, the name of the result, by
      default made of dataset, way and shot. Those without a value change
      nothing.

  Raises:
    core.BadInput: for changes that need a tag, or a field that does not exist.
  """
  config = config.copy_and_resolve_references()
  parts = []
  with config.unlocked():
    for field, text in changes.items():
      config_lib.set_field(config, field, text)
    if dataset := options.get('dataset'):
      if dataset != config.data.dataset and 'data.classes' not in changes:
        # Ranges and numbers of classes were those of the run's own set.
        config.data.classes, config.data.shuffle_classes = '', 0
      config.data.dataset = dataset
      parts.append(dataset)
    config.data.dir = options.get('data_dir') or config.data.dir
    for field in ('way', 'shot'):
      if value := options.get(field):
        config.episode[field] = value
        parts.append(f'{value}{field}')
    config.eval.episodes = options.get('episodes') or config.eval.episodes
  harmless = {'eval.episodes', 'eval.batch', 'data.dir'}
  tag = options.get('tag')
  if set(changes) - harmless and not tag:
    raise core.BadInput(
      f'--config.{next(iter(changes))} changes what is evaluated; give the '
      'result a name with --tag=NAME'
    )
  return config, tag or '-'.join(parts)
