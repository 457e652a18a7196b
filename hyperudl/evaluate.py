"""Evaluates a run: `python -m hyperudl.evaluate --workdir=DIR`.

Without --once it polls: each new checkpoint is evaluated on the same fixed
episodes of `valid` and `test`, until the trainer's DONE. With --once it
evaluates one checkpoint and appends a line. It needs nothing but the workdir
and the data; it may run beside the trainer or later.

Results: DIR/eval/<split>.jsonl, one line a checkpoint, and
DIR/eval/<split>_episodes.npz, the numbers of every episode of the last one;
with --uncertainty DIR/eval/uncertainty-<split>.jsonl (`uncertainty.py`).
Exit codes: 0 done; 2 bad flag, config or data; 3 no checkpoint is readable;
5 disk full or unwritable; 6 another evaluator polls this run; 7 another process
of several has ended; 8 a device has too little memory; 130 Ctrl-C; 143 SIGTERM.
"""

import pathlib
import time

from absl import flags
from absl import logging

from hyperudl import core
from hyperudl.core import cli
from hyperudl.core import config as config_lib
from hyperudl.core import distributed
from hyperudl.evaluation import evaluator as evaluation
from hyperudl.evaluation import uncertainty
from hyperudl.plots import embeddings
from hyperudl.storage import filesystem
from hyperudl.storage import metrics
from hyperudl.storage import selection
from hyperudl.training import runs

SPLITS = ('train', 'valid', 'test', 'all')
STEPS = ('latest', 'best', 'best_ensemble')


_TOLD = ('accuracy', 'accuracy_unadapted', 'gain_step', 'gain_data')


def format_row(tag, step, row):
  """The line that a person reads."""
  parts = [f'{tag} step {step}:']
  for name in (*_TOLD, 'accuracy_pixels', 'nll', 'ece', 'auroc_entropy'):
    if name in row and f'{name}_ci95' in row:
      scale, unit = (
        (1, '') if name in ('nll', 'ece', 'auroc_entropy') else (100, '%')
      )
      parts.append(
        f'{name} {scale * row[name]:.2f}+-'
        f'{scale * row[f"{name}_ci95"]:.2f}{unit}'
      )
  return '  '.join(parts) + f'  ({row["episodes"]} episodes)'


def report(workdir, name, step, row, values, save_predictions):
  """Writes the row of a result and the numbers behind it, and tells it."""
  kept = {
    key: array
    for key, array in values.items()
    if save_predictions or key not in ('probabilities', 'y')
  }
  metrics.write_evaluation(workdir, name, step, row, kept)
  logging.info('%s', format_row(name, step, row))


def evaluate_once(workdir, config, step, split, tag, save_predictions, stop=()):
  """Evaluates one checkpoint and appends a line.

  Args:
    workdir: of the run.
    config: of the run, with overrides applied.
    step: 'latest', 'best', 'best_ensemble' or a number. The line of an
      ensemble has the best step, and all of them as `ensemble`.
    split: one of SPLITS.
    tag: '' or what names the overrides.
    save_predictions: keep per-query probabilities.
    stop: turns true when to give up.

  Returns:
    The row, or None if it was stopped.
  """
  name = split if not tag else f'{tag}-{split}'
  metrics.evaluation_path(workdir, name)  # a bad name fails now
  evaluator = distributed.together(
    lambda: evaluation.Evaluator(config, split, config.eval.episodes)
  )
  shapes = evaluation.template(evaluator)
  together = step == 'best_ensemble'
  if together and config.episode.tasks:
    raise core.BadInput(
      '--step=best_ensemble averages answers to one task, and this run has '
      f'sequences of {config.episode.tasks}: choose best or a number'
    )
  chosen = (selection.best_steps(workdir) or ['best']) if together else [step]
  distributed.agree(len(chosen), 'the checkpoints to evaluate')
  numbers, results = [], []
  for one in chosen:
    raw, number, _ = distributed.together(
      lambda one=one: selection.restore_step(workdir, one)
    )
    distributed.agree(number, f'the checkpoint that they read as {one!r}')
    values = evaluator.run(evaluation.fit(raw, shapes, number), stop)
    if values is None:
      return None
    numbers.append(number)
    results.append(values)
  values = evaluation.ensemble(results) if together else results[0]
  row = evaluation.summarise(config, values)
  if together:
    row['ensemble'] = numbers
  distributed.lead(
    lambda: report(workdir, name, numbers[0], row, values, save_predictions)
  )
  return row


def poll(workdir, splits, save_predictions, stop=(), adjust=lambda c: c):
  """Evaluates every new checkpoint until the trainer is done.

  Args:
    workdir: of the run; it may not exist yet.
    splits: which to evaluate; the best by 'valid' are kept in `best/`.
    save_predictions: keep per-query probabilities.
    stop: turns true when to end.
    adjust: config of the run -> config to evaluate with.
  """
  path = pathlib.Path(workdir)
  while not (path / 'config.json').exists():
    if stop:
      return
    time.sleep(0.5)
  lock = filesystem.acquire_lock(workdir, '.evaluator.lock')
  config = adjust(runs.read_config(workdir))
  evaluators = [
    evaluation.Evaluator(config, s, config.eval.episodes) for s in splits
  ]
  shapes = evaluation.template(evaluators[0])
  done = [metrics.evaluated_steps(workdir, split) for split in splits]
  found = selection.poll(
    workdir,
    None,
    (path / 'DONE').exists,
    lambda: bool(stop),
    done=set.intersection(*done),
  )
  writer = metrics.open_writer(workdir, 'eval')
  try:
    for raw, step, settings in found:
      params = evaluation.fit(raw, shapes, step)
      show(writer, step, evaluators[-1], params)
      for evaluator in evaluators:
        if step in metrics.evaluated_steps(workdir, evaluator.split):
          continue
        values = evaluator.run(params, stop)
        if values is None:
          return
        row = evaluation.summarise(config, values)
        # Before the row: a kill in between repeats both, and loses none.
        if evaluator.split == 'valid':
          select(workdir, config, raw, settings, step, row)
        report(workdir, evaluator.split, step, row, values, save_predictions)
        plot(writer, evaluator.split, step, row)
  finally:
    metrics.close_writer(writer)
    lock.close()


def select(workdir, config, raw, settings, step, row):
  """Keeps a checkpoint in `best/` if its accuracy is one of the best."""
  settled = step >= min(config.eval.select_after, config.steps)
  if config.eval.keep_best and settled:
    selection.keep_best(
      workdir, raw, settings, step, row['accuracy'], config.eval.keep_best
    )


def plot(writer, split, step, row):
  """Adds the numbers of a result to TensorBoard."""
  numbers = {k: v for k, v in row.items() if isinstance(v, float)}
  metrics.write_scalars(
    writer, step, {f'{split}/{k}': v for k, v in numbers.items()}
  )


def show(writer, step, evaluator, params):
  """Draws an episode and what the learner has to show in TensorBoard."""
  episode, visuals = evaluator.visuals(params)
  if episode.support.x.ndim == 4:
    for name in ('support', 'query'):
      images = getattr(episode, name).x
      metrics.write_images(writer, step, f'episode/{name}', images, 5)
  if embeddings.can_draw(visuals):
    _, values = evaluator.numbers(params)
    embeddings.show_tsne(writer, step, episode, visuals, values)
  for name, value in visuals.items():
    kind, _, title = name.partition('/')
    if kind == 'histogram':
      metrics.write_histogram(writer, step, title, value)
    elif kind == 'image':
      images = value.reshape(-1, *value.shape[-3:])
      metrics.write_images(writer, step, f'learner/{title}', images, 8)


def override(config, changes, flag_values):
  """The run's config with the command line's changes, and its tag.

  Args:
    config: from `read_config`.
    changes: {'data.shift': 'none', ...} from --config.x.y=v.
    flag_values: absl flags of this main.

  Returns:
    (config, tag).
  """
  config = config.copy_and_resolve_references()
  parts = []
  with config.unlocked():
    for field, text in changes.items():
      config_lib.set_field(config, field, text)
    if flag_values.dataset:
      other = config.data.dataset != flag_values.dataset
      config.data.dataset = flag_values.dataset
      if other and 'data.classes' not in changes:
        # Ranges and numbers of classes were those of the run's own set.
        config.data.classes, config.data.shuffle_classes = '', 0
      parts.append(flag_values.dataset)
    if flag_values.data_dir:
      config.data.dir = flag_values.data_dir
    for field in ('way', 'shot'):
      if flag_values[field].value:
        config.episode[field] = flag_values[field].value
        parts.append(f'{flag_values[field].value}{field}')
    if flag_values.episodes:
      config.eval.episodes = flag_values.episodes
  harmless = {'eval.episodes', 'eval.batch', 'data.dir'}
  if set(changes) - harmless and not flag_values.tag:
    raise core.BadInput(
      f'--config.{next(iter(changes))} changes what is evaluated; give the '
      'result a name with --tag=NAME'
    )
  return config, flag_values.tag or '-'.join(parts)


def main(argv, changes):
  """Evaluates one checkpoint, or polls until the trainer is done."""
  del argv
  values = flags.FLAGS
  parts = 1
  if values.cpu_devices == 0 and values.once:  # polling has a trainer beside
    parts = runs.read_config(values.workdir).eval.batch
  devices = cli.devices_of_cpu(values.cpu_devices, parts)
  cli.set_up(several=True, cpu_devices=devices)
  stop = cli.Stop()
  stop.install()
  step = values.step
  if not distributed.alone() and (values.uncertainty or not values.once):
    raise core.BadInput(
      'several processes evaluate one checkpoint together (--once, without '
      '--uncertainty); an evaluator that polls runs in one process'
    )
  if values.once:
    config, tag = override(runs.read_config(values.workdir), changes, values)
    if step not in STEPS and not step.isdecimal():
      raise core.BadInput(
        f'--step={step} is neither a number nor one of {", ".join(STEPS)}'
      )
    target = (values.workdir, config, step, values.split or 'test', tag)
    if values.uncertainty:
      row = uncertainty.evaluate_once(*target, stop)
      if row:
        logging.info('%s', format_row('uncertainty', row['step'], row))
    else:
      with distributed.guarded():
        evaluate_once(*target, values.save_predictions, stop)
  else:
    alone = ('dataset', 'way', 'shot', 'tag', 'uncertainty')
    wrong = [name for name in alone if values[name].value]
    if changes or wrong or values.step != 'latest':
      name = [f'config.{name}' for name in changes] + wrong + ['step']
      raise core.BadInput(f'--{name[0]} needs --once')
    splits = [values.split] if values.split else ['test', 'valid']
    adjust = lambda config: override(config, {}, values)[0]
    poll(values.workdir, splits, values.save_predictions, stop, adjust)
  with distributed.guarded():
    code = distributed.most(stop.code)
  if code:
    cli.fail(code, 'stopped; the same command goes on')


def define_flags():
  """The flags of this main."""
  flags.DEFINE_string('workdir', None, 'Folder of the run.', required=True)
  flags.DEFINE_boolean('once', False, 'Evaluate one checkpoint and end.')
  flags.DEFINE_string(
    'step',
    'latest',
    'With --once: latest, best, best_ensemble or a step number.',
  )
  flags.DEFINE_enum('split', None, SPLITS, 'Default: test and, polling, valid.')
  flags.DEFINE_integer(
    'episodes', None, 'Default: config.eval.episodes.', lower_bound=1
  )
  flags.DEFINE_string('dataset', None, 'Test on another data set.')
  flags.DEFINE_string('data_dir', None, 'Folder of the data.')
  flags.DEFINE_integer('way', None, 'Classes an episode.', lower_bound=2)
  flags.DEFINE_integer('shot', None, 'Labelled images a class.', lower_bound=1)
  flags.DEFINE_boolean(
    'save_predictions', False, 'Keep the probabilities of every query.'
  )
  flags.DEFINE_boolean(
    'uncertainty',
    False,
    'With --once: calibration, and doubt at classes outside of the support.',
  )
  flags.DEFINE_string(
    'tag', None, 'Name of the result when --config.x.y=v changes something.'
  )
  cli.define_cpu_devices()
  flags.declare_key_flag('cpu_devices')  # so that --help tells it


if __name__ == '__main__':
  define_flags()
  cli.run_with_overrides(main)
