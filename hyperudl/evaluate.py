"""Evaluates a run: `python -m hyperudl.evaluate --workdir=DIR`.

Without --once it polls: each new checkpoint is evaluated on the same fixed
episodes of `valid` and `test`, until the trainer's DONE. With --once it
evaluates one checkpoint and appends a line. It needs nothing but the workdir
and the data; it may run beside the trainer or later.

Results: DIR/eval/<split>.jsonl, one line a checkpoint, and
DIR/eval/<split>_episodes.npz, the numbers of every episode of the last one.
Exit codes: 0 done; 2 bad flag, config or data; 3 no checkpoint is readable;
5 disk full or unwritable; 130 Ctrl-C; 143 SIGTERM.
"""

import pathlib
import time

from absl import flags
from absl import logging
import jax
import jax.numpy as jnp
import numpy as np

from hyperudl import cli
from hyperudl import config as config_lib
from hyperudl import core
from hyperudl import loop
from hyperudl import losses
from hyperudl import metrics
from hyperudl import selection
from hyperudl import stats
from hyperudl import storage
from hyperudl import train
from hyperudl.data import episodes

SPLITS = ('train', 'valid', 'test', 'all')
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
  return jnp.mean((answer == query.y).astype(jnp.float32))


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
    learner = train.make_learner(config)
    dataset = train.load_data(config, split)
    episodes.check_fits(config, dataset, split)
    others = None
    if config.episode.emit_from != 'own':
      others = train.load_data(config, 'train')
    self.draw = episodes.make_draw(
      config, dataset, train=False, others=others
    )
    self.step = loop.make_eval_step(learner)
    self.look = loop.make_eval_step(learner, visuals=True)
    self.pixels = jax.jit(jax.vmap(pixel_nearest_neighbour))

  def batch(self, start, count):
    """Episodes start .. start + count - 1 and the learner's keys."""
    keys = episodes.eval_keys(self.split, start, count)
    fold = jax.vmap(lambda key: jax.random.fold_in(key, EVAL_KEY))
    return self.draw(keys), fold(keys)

  def run(self, params, stop=()):
    """Metrics of every episode: dict name -> numpy [episodes, ...].

    Args:
      params: of the learner.
      stop: turns true when to give up; then the result is None.
    """
    parts, size = [], min(self.config.eval.batch, self.count)
    for start in range(0, self.count, size):
      if stop:
        return None
      # Always a full batch, so that one program serves; the rest is cut.
      batch, keys = self.batch(start, size)
      values = dict(self.step(params, batch, keys))
      if not self.config.episode.tasks:
        values['accuracy_pixels'] = self.pixels(batch)
      values['family'] = batch.extra['family']
      values['y'] = batch.query.y
      parts.append(jax.device_get(values))
    return {
      name: np.concatenate([part[name] for part in parts])[: self.count]
      for name in parts[0]
    }

  def visuals(self, params):
    """(one episode, what the learner has to show of it)."""
    batch, keys = self.batch(0, 1)
    values = self.look(params, batch, keys)
    first = lambda tree: jax.tree.map(lambda leaf: np.asarray(leaf[0]), tree)
    return first(batch), first(values)


def summarise(config, values):
  """One row of means and half widths of 95% intervals over episodes.

  Args:
    config: of the run.
    values: from `Evaluator.run`.

  Returns:
    dict for the result line: fractions, `<name>` and `<name>_ci95`.
  """
  row = {'episodes': len(values['accuracy'])}
  for name, array in values.items():
    if array.ndim == 1 and name != 'family':
      row[name], row[f'{name}_ci95'] = stats.mean_ci95(array)
  row['transductive'] = bool(
    config.episode.transductive or config.learner.to_dict().get('norm')
    == 'batch'
  )
  row['shift'] = config.data.shift
  row['proportions'] = config.episode.proportions
  return row


def format_row(tag, step, row):
  """The line that a person reads."""
  parts = [f'{tag} step {step}:']
  for name in ('accuracy', 'accuracy_unadapted', 'gain_step', 'gain_data',
               'accuracy_pixels', 'nll'):
    if name in row:
      scale, unit = (1, '') if name == 'nll' else (100, '%')
      parts.append(
        f'{name} {scale * row[name]:.2f}+-'
        f'{scale * row[f"{name}_ci95"]:.2f}{unit}'
      )
  return '  '.join(parts) + f'  ({row["episodes"]} episodes)'


def ensemble(runs):
  """Metrics of the mean of several checkpoints' probabilities.

  Args:
    runs: list of results of `Evaluator.run` on the same episodes.
  """
  p = np.mean([run['probabilities'] for run in runs], axis=0)
  y = runs[0]['y']
  right = np.take_along_axis(p, y[..., None], axis=-1)[..., 0]
  return {
    'accuracy': (p.argmax(axis=-1) == y).mean(axis=-1),
    'nll': -np.log(np.maximum(right, 1e-12)).mean(axis=-1),
    'probabilities': p,
    'accuracy_pixels': runs[0]['accuracy_pixels'],
    'family': runs[0]['family'],
    'y': y,
  }


def read_config(workdir):
  """The config of the run in `workdir`; core.BadInput if there is none."""
  path = pathlib.Path(workdir) / 'config.json'
  try:
    text = path.read_text()
  except OSError as error:
    raise core.BadInput(
      f'no run in {workdir}: {path} cannot be read ({error.strerror}); '
      '--workdir is the folder that the trainer was given'
    ) from error
  return config_lib.from_json(text)


def template(evaluator):
  """Shapes of the learner's parameters for the evaluator's episodes."""
  batch, keys = evaluator.batch(0, 1)
  episode = jax.tree.map(lambda leaf: leaf[0], batch)
  learner = train.make_learner(evaluator.config)
  return jax.eval_shape(learner.init, keys[0], episode)


def fit(raw, shapes, step):
  """Parameters of a restored state in the structure of `shapes`.

  Raises:
    core.BadInput: if the learner as now configured has other parameters.
  """
  leaves = storage.name_leaves(raw['params'])
  problem = storage.mismatch(leaves, storage.name_leaves(shapes))
  if problem:
    raise core.BadInput(
      f'step {step} does not fit the learner with these overrides: '
      f'{problem}; some learners cannot change way or image size'
    )
  return storage.fill(shapes, leaves)


def report(workdir, tag, split, step, config, values, save_predictions):
  """Writes one result and returns its row."""
  row = summarise(config, values)
  name = split if not tag else f'{tag}-{split}'
  kept = {
    key: array
    for key, array in values.items()
    if save_predictions or key not in ('probabilities', 'y')
  }
  metrics.write_evaluation(workdir, name, step, row, kept)
  logging.info('%s', format_row(name, step, row))
  return row


def evaluate_once(workdir, config, step, split, tag, save_predictions):
  """Evaluates one checkpoint and appends a line.

  Args:
    workdir: of the run.
    config: of the run, with overrides applied.
    step: 'latest', 'best', 'best_ensemble' or a number.
    split: one of SPLITS.
    tag: '' or what names the overrides.
    save_predictions: keep per-query probabilities.

  Returns:
    The row.
  """
  evaluator = Evaluator(config, split, config.eval.episodes)
  shapes = template(evaluator)
  if step == 'best_ensemble':
    chosen = selection.best_steps(workdir) or ['best']
  else:
    chosen = [step]
  runs = []
  for one in chosen:
    raw, number, _ = selection.restore_step(workdir, one)
    runs.append(evaluator.run(fit(raw, shapes, number)))
  values = ensemble(runs) if step == 'best_ensemble' else runs[0]
  return report(workdir, tag, split, number, config, values, save_predictions)


def poll(workdir, splits, save_predictions, stop=()):
  """Evaluates every new checkpoint until the trainer is done.

  Args:
    workdir: of the run; it may not exist yet.
    splits: which to evaluate; the best by 'valid' are kept in `best/`.
    save_predictions: keep per-query probabilities.
    stop: turns true when to end.
  """
  path = pathlib.Path(workdir)
  while not (path / 'config.json').exists():
    if stop:
      return
    time.sleep(0.5)
  config = read_config(workdir)
  evaluators = [Evaluator(config, s, config.eval.episodes) for s in splits]
  shapes = template(evaluators[0])
  done = [metrics.evaluated_steps(workdir, split) for split in splits]
  writer = metrics.open_writer(workdir, 'eval')
  found = selection.poll(
    workdir,
    None,
    (path / 'DONE').exists,
    lambda: bool(stop),
    done=set.intersection(*done),
  )
  try:
    for raw, step, settings in found:
      params = fit(raw, shapes, step)
      show(writer, step, *evaluators[-1].visuals(params))
      for evaluator in evaluators:
        split = evaluator.split
        if step in metrics.evaluated_steps(workdir, split):
          continue
        values = evaluator.run(params, stop)
        if values is None:
          return
        row = report(
          workdir, '', split, step, config, values, save_predictions
        )
        numbers = {k: v for k, v in row.items() if isinstance(v, float)}
        metrics.write_scalars(
          writer, step, {f'{split}/{k}': v for k, v in numbers.items()}
        )
        ready = step >= min(config.eval.select_after, config.steps)
        if split == 'valid' and config.eval.keep_best and ready:
          selection.keep_best(
            workdir,
            raw,
            settings,
            step,
            row['accuracy'],
            config.eval.keep_best,
          )
  finally:
    metrics.close_writer(writer)


def show(writer, step, episode, visuals):
  """Draws an episode and what the learner has to show in TensorBoard."""
  if episode.support.x.ndim == 4:
    pictures = {
      'support': episode.support.x,
      'query': episode.query.x,
    }
    for name, images in pictures.items():
      metrics.write_images(writer, step, f'episode/{name}', images, 5)
  for name, value in visuals.items():
    kind, _, title = name.partition('/')
    if kind == 'histogram':
      metrics.write_histogram(writer, step, title, value)
      continue
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
      config.data.dataset = flag_values.dataset
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
  del argv
  cli.set_up()
  stop = cli.Stop()
  stop.install()
  values = flags.FLAGS
  if values.once:
    config, tag = override(read_config(values.workdir), changes, values)
    evaluate_once(
      values.workdir,
      config,
      values.step,
      values.split or 'test',
      tag,
      values.save_predictions,
    )
  else:
    if changes or values.dataset or values.way or values.shot:
      raise core.BadInput('overrides and other data sets need --once')
    splits = [values.split] if values.split else ['test', 'valid']
    poll(values.workdir, splits, values.save_predictions, stop)
  if stop:
    cli.fail(stop.code, 'stopped; the same command goes on')


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
  flags.DEFINE_string(
    'tag', None, 'Name of the result when --config.x.y=v changes something.'
  )


if __name__ == '__main__':
  define_flags()
  cli.run_with_overrides(main)
