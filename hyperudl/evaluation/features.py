"""Writes features of a run's network as a data set: a `.npz` file.

  python -m hyperudl.evaluation.features --workdir=runs/protonet \
    --out=data_numpy_dir/myfeatures.npz

The images are those of the run, or of --dataset, with their classes and splits;
the features are what the run's embedding makes of each image by itself. The
file is a data set like others: --config=configs/baseline.py:myfeatures. Exit
codes: 0 done; 2 bad flag, config or data (nothing written); 3 no checkpoint is
readable; 5 disk full or unwritable; 130 Ctrl-C.
"""

from collections.abc import Callable

from absl import flags
from absl import logging
import jax
import jax.numpy as jnp
import numpy as np

from hyperudl import core
from hyperudl.core import cli
from hyperudl.core import config as config_lib
from hyperudl.core import paths
from hyperudl.core.config import ConfigDict
from hyperudl.data.datasets import class_table
from hyperudl.data.datasets import npz_file
from hyperudl.evaluation import evaluator as evaluator_lib
from hyperudl.learners import protonet
from hyperudl.storage import filesystem
from hyperudl.storage import selection
from hyperudl.training import setup
from hyperudl.training import train_step

BATCH = 256  # images at a time


def write(
  workdir: filesystem.StrPath, config: ConfigDict, out: str, step: str
) -> str:
  """Write the features of all splits of the config's data set.

  Args:
    workdir: of a run of `protonet`.
    config: of the run; its data set may be another one.
    out: path of the file, which ends in .npz.
    step: of the checkpoint: 'latest', 'best' or a number.

  Returns:
    A report of several lines.

  Raises:
    core.BadInput: another learner, one whose features of an image depend on
      others, a name that is no .npz file, or data that cannot be read.
  """
  if not out.endswith('.npz'):
    raise core.BadInput(f'--out={out}: expected a name that ends in .npz')
  _check(workdir, config)
  embed = make_embed(workdir, config, step)
  blocks: list[np.ndarray] = []
  names: list[str] = []
  alphabets: list[str] = []
  split: list[str] = []
  for name in class_table.SPLITS:
    data = setup.load_data(config, name)
    ends = data.starts + data.counts
    blocks += [embed(data.images[a:b]) for a, b in zip(data.starts, ends)]
    names += data.class_names
    alphabets += data.alphabets or ()
    split += [name] * len(data.counts)
  table = class_table.Table(
    f'{config.data.dataset} by {workdir}',
    *(blocks, tuple(names), tuple(alphabets) or None, tuple(split)),
  )
  digest = npz_file.write(class_table.check(table), out)
  return npz_file.describe(table, out, digest)


def _check(workdir, config):
  learner = config.learner
  if learner.name != 'protonet':
    raise core.BadInput(
      f'{workdir} is a run of {learner.name!r}: features are written of the '
      'embedding of a protonet'
    )
  if learner.norm == 'batch':
    raise core.BadInput(
      f'{workdir} normalises by the batch, so the features of an image would '
      'depend on others: train one with --config.learner.norm=group'
    )
  if config.data.split_by == 'image':
    raise core.BadInput(
      "data.split_by='image' has each class in all splits, and a file gives "
      'each class one split: choose another data.split_by'
    )


def make_embed(
  workdir: filesystem.StrPath, config: ConfigDict, step: str
) -> Callable[[np.ndarray], np.ndarray]:
  """Return the function uint8[n, H, W, C] -> f32[n, D] of a run's embedding.

  Args:
    workdir: of a run of `protonet`.
    config: of the run.
    step: of the checkpoint.
  """
  evaluator = evaluator_lib.Evaluator(config, 'test', 1)
  checkpoint = selection.restore_step(workdir, step)
  params = setup.fit_params(checkpoint, evaluator.param_shapes())
  params = jax.tree.map(jnp.asarray, params)
  settings = config_lib.learner_settings(config)
  hyper = protonet.Config(way=config.episode.way, **settings)
  apply = train_step.at_precision(
    lambda x: protonet.embed(hyper, params, x), config.matmul_precision
  )
  apply = jax.jit(apply)

  def embed(images):
    parts = []
    for start in range(0, len(images), BATCH):
      piece = images[start : start + BATCH]
      # Always a full batch, so that one program serves.
      x = np.zeros((BATCH, *piece.shape[1:]), np.float32)
      is_image = piece.dtype == np.uint8
      x[: len(piece)] = piece / np.float32(255) if is_image else piece
      parts.append(np.asarray(apply(x))[: len(piece)])
    return np.concatenate(parts)

  return embed


def main(argv: list[str]) -> None:
  """Write the features of the run that the flags name."""
  del argv
  cli.set_up()
  values = flags.FLAGS
  config = setup.read_config(values.workdir)
  with config.unlocked():
    config.data.dataset = values.dataset or config.data.dataset
    config.data.dir = values.data_dir or config.data.dir
  report = write(values.workdir, config, values.out, values.step)
  for line in report.splitlines():
    logging.info('%s', line)


if __name__ == '__main__':
  paths.define('workdir', None, 'Folder of a run of `protonet`.', required=True)
  paths.define('out', None, 'File to write, NAME.npz.', required=True)
  paths.define('data_dir', None, "Folder of the data; default: the run's.")
  flags.DEFINE_string('dataset', None, "Set of images; default: the run's.")
  flags.DEFINE_string('step', 'latest', 'Checkpoint: latest, best or a number.')
  cli.run(main)
