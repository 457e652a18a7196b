"""Adapted latents of training tasks: `python -m hyperudl.training.precompute`.

  python -m hyperudl.training.precompute --workdir=runs/hypernet --copies=10

Adapts the latent of a `hypernet` run to each training task --copies times, on
other images of it each time, and writes WORKDIR/latents.npz, which `hvae`,
`hyperclip` and `hyperldm` learn from with --config.data.latents=WORKDIR. It is
what the kinds without a code for each task need; without it they adapt anew in
every update. Exit codes: 0 done; 2 bad flag, config or data; 3 no checkpoint
is readable; 5 disk full or unwritable; 8 a device has too little memory; 130
Ctrl-C.
"""

import functools
import io
import pathlib

from absl import flags
from absl import logging
import jax
import jax.numpy as jnp
import numpy as np

from hyperudl import core
from hyperudl.core import cli
from hyperudl.core import config as config_lib
from hyperudl.data import episodes
from hyperudl.data.language import task_set
from hyperudl.evaluation import evaluator
from hyperudl.learners import hypernet
from hyperudl.learners._language import hypernetwork
from hyperudl.storage import filesystem
from hyperudl.storage import selection
from hyperudl.training import runs
from hyperudl.training import train_step

BATCH = 16  # tasks at a time


def latents_of(settings, config, params, tasks, copies):
  """Adapted latents f32[M, T, Z] of all tasks of a set.

  Args:
    settings: `hypernets.Settings` of the run.
    config: of the run.
    params: of the run.
    tasks: the `vqa.TaskSet` of its training.
    copies: M.
  """
  draw = episodes.make_draw(config, tasks, train=True)

  def adapt(batch):
    one = lambda episode: hypernetwork.adapted_on_all(settings, params, episode)
    return jax.vmap(one)(batch)['z']

  adapt = jax.jit(train_step.at_precision(adapt, config.matmul_precision))

  count, parts = len(tasks.names), []
  for copy in range(copies):
    rows = []
    for start in range(0, count, BATCH):
      numbers = np.minimum(start + np.arange(BATCH), count - 1)
      keys = episodes.train_keys(config.seed, copy * count + start, BATCH)
      rows.append(np.asarray(adapt(draw(keys, jnp.asarray(numbers)))))
    parts.append(np.concatenate(rows)[:count])
    logging.info('precompute: %d of %d copies', copy + 1, copies)
  return np.stack(parts)


def precompute(workdir, copies):
  """Writes WORKDIR/latents.npz, of the step that `init_from` would take.

  Raises:
    core.BadInput: for a run that is no hypernet with a latent, or copies < 1.
  """
  config = runs.read_config(workdir)
  if config.learner.name != 'hypernet':
    raise core.BadInput(
      f'{workdir} is a run of {config.learner.name!r}: precompute adapts the '
      'latents of a hypernet'
    )
  if copies < 1:
    raise core.BadInput(f'--copies={copies}: expected 1 or more')
  try:
    settings = hypernet.settings_of(
      config.episode.way, **config_lib.learner_settings(config)
    )
    hypernetwork.check_latents(settings)
  except ValueError as error:
    raise core.BadInput(f'{workdir}: {error}') from error
  tasks = runs.load_data(config, 'train')
  draw = episodes.make_draw(config, tasks, train=True)
  keys = episodes.train_keys(config.seed, 0, 1)
  episode = jax.tree.map(lambda leaf: leaf[0], draw(keys))
  init = functools.partial(hypernetwork.init, settings)
  shapes = jax.eval_shape(init, keys[0], episode)
  source = selection.upstream_step(workdir)[0]
  raw, number, _ = selection.restore_step(workdir, source)
  params = jax.tree.map(jnp.asarray, evaluator.fit(raw, shapes, number))
  latents = latents_of(settings, config, params, tasks, copies)
  file = io.BytesIO()
  np.savez(file, latents=latents, ids=tasks.ids, step=number)
  path = pathlib.Path(workdir) / task_set.LATENTS
  filesystem.replace(path, file.getvalue())
  logging.info('%s: %s latents of step %d', path, latents.shape, number)


def main(argv):
  """Precomputes for the run that the flags name."""
  del argv
  cli.set_up()
  precompute(FLAGS.workdir, FLAGS.copies)


if __name__ == '__main__':
  FLAGS = flags.FLAGS
  flags.DEFINE_string('workdir', None, 'Folder of a run of `hypernet`.')
  flags.DEFINE_integer('copies', 10, 'Latents of each task.')
  flags.mark_flags_as_required(['workdir'])
  cli.run(main)
