"""Adapts latents of training tasks: `python -m hyperudl.training.precompute`.

  python -m hyperudl.training.precompute --workdir=runs/hypernet --copies=10

Adapts the latent of a `hypernet` run to each training task --copies times, on
other images of it each time, and writes WORKDIR/latents.npz, which `hvae`,
`hyperclip` and `hyperldm` learn from with --config.data.latents=WORKDIR. It
saves time for the kinds that have not learned a latent for each task: without
it, a latent is adapted again in every update. Exit codes: 0 done; 2 bad flag,
config or data; 3 no checkpoint is readable; 5 disk full or unwritable; 8 a
device has too little memory; 130 Ctrl-C.
"""

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
from hyperudl.core import paths
from hyperudl.data import episodes
from hyperudl.data.language import task_set
from hyperudl.learners import hypernet
from hyperudl.learners._language import hypernetwork
from hyperudl.storage import filesystem
from hyperudl.storage import selection
from hyperudl.training import setup
from hyperudl.training import train_step

BATCH = 16  # tasks at a time


def precompute(workdir: filesystem.StrPath, copies: int) -> None:
  """Write WORKDIR/latents.npz from the step that `init_from` would read.

  Args:
    workdir: of a run of `hypernet`.
    copies: latents of each task.

  Raises:
    core.BadInput: for a run that is no hypernet with a latent, or copies < 1.
  """
  config = setup.read_config(workdir)
  if copies < 1:
    raise core.BadInput(f'--copies={copies}: expected 1 or more')
  learner_config = _hypernet_config(workdir, config)
  components = setup.prepare(config)
  tasks, draw = components.dataset, components.draw
  shapes = jax.eval_shape(
    components.learner.init, *setup.first_episode(config, draw)
  )
  source, _ = selection.upstream_step(workdir)
  checkpoint = selection.restore_step(workdir, source)
  params = jax.tree.map(jnp.asarray, setup.fit_params(checkpoint, shapes))

  def adapt(episode):
    net = hypernetwork.Hypernet(learner_config, params)
    return net.adapt_to_all_images(episode).latent

  adapt = train_step.at_precision(jax.vmap(adapt), config.matmul_precision)
  latents = _adapt_all(config, jax.jit(adapt), draw, len(tasks.names), copies)
  file = io.BytesIO()
  np.savez(file, latents=latents, ids=tasks.ids, step=checkpoint.step)
  path = pathlib.Path(workdir) / task_set.LATENTS
  filesystem.replace(path, file.getvalue())
  shape, step = latents.shape, checkpoint.step
  logging.info('%s: %s latents of step %d', path, shape, step)


def _hypernet_config(workdir, config):
  """Return the `hypernet.Config` of a run; BadInput without latents."""
  if config.learner.name != 'hypernet':
    raise core.BadInput(
      f'{workdir} is a run of {config.learner.name!r}: precompute adapts the '
      'latents of a hypernet'
    )
  settings = config_lib.learner_settings(config)
  try:
    learner_config = hypernet.Config(way=config.episode.way, **settings)
    hypernetwork.check_has_latents(learner_config)
  except ValueError as error:
    raise core.BadInput(f'{workdir}: {error}') from error
  return learner_config


def _adapt_all(config, adapt, draw, count, copies):
  """Return latents f32[copies, count, Z], each copy on other images."""
  parts = []
  for copy in range(copies):
    rows = []
    for start in range(0, count, BATCH):
      numbers = np.minimum(start + np.arange(BATCH), count - 1)
      keys = episodes.train_keys(config.seed, copy * count + start, BATCH)
      rows.append(np.asarray(adapt(draw(keys, jnp.asarray(numbers)))))
    parts.append(np.concatenate(rows)[:count])
    logging.info('precompute: %d of %d copies', copy + 1, copies)
  return np.stack(parts)


def main(argv: list[str]) -> None:
  """Precompute the latents of the run that the flags name."""
  del argv
  cli.set_up()
  precompute(flags.FLAGS.workdir, flags.FLAGS.copies)


if __name__ == '__main__':
  paths.define('workdir', None, 'Folder of a run of `hypernet`.', required=True)
  flags.DEFINE_integer('copies', 10, 'Latents of each task.')
  cli.run(main)
