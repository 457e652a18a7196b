"""Converts an image set into the .npz file that hyperudl trains on.

python -m hyperudl.data.convert --kind=KIND --source=PATH --name=NAME
                                [--out=data_numpy_dir] [--image_size=28] ...

KIND      PATH
omniglot  folder with images_background.zip and images_evaluation.zip, zipped or
          unpacked; becomes 28x28, ink = 255. --download=URL first fetches
          missing zip files into PATH.
folder    <class>/*.png, or <alphabet>/<class>/*.png, or either of them under
          train/, valid/ and test/ (.jpg and others are fine too, HEIC with
          the package pillow-heif). Photographs are turned as their EXIF data
          say, and what is passed over is told.
mini      mini-ImageNet: folder with mini-imagenet-cache-{train,val,test}.pkl
          or miniImageNet_category_split_{train_phase_train,val,test}.pickle
tiered    tieredImageNet: folder with {train,val,test}_images.npz and
          {train,val,test}_labels.pkl
npy       HyperTransformer's cache: NAME.npy, NAME_ch_first.npy, or a folder of
          chunk_*.npy
metavqa   VQA v2: folder with its question and annotation files of train2014 and
          val2014 and templates.json (question -> sentence with one {}). Writes
          a folder NAME of few-shot tasks, without features (see
          data/language/metavqa.py). If PATH already has meta_train.json, only
          prints the statistics of its tasks.
tfds      a set that tensorflow-datasets prepared as array_record, such as
          ~/tensorflow_datasets/mnist/3.0.1; needs no TensorFlow

--transpose exchanges rows and columns of every image (EMNIST is stored that
way); --invert exchanges dark and light (the other sets have ink = 255).
--split=FILE assigns classes to splits by lines `<alphabet or class> <train,
valid, test, or none to leave it out>`. configs/splits/omniglot_background.txt
is the split of the Omniglot results in docs/results; --source must then be
images_background.zip only.

Pickles are read without running their code. The result is NAME.npz (images,
class_names and, if known, alphabets and split) and its checksum in
NAME.npz.sha256. Train on it with --config.data.dataset=NAME.

Exit codes: 0 done, 1 download failed, 2 bad flag or data (nothing written),
5 not writable.
"""

from collections.abc import Sequence
import functools
import os
import sys

from absl import flags
import numpy as np

from hyperudl import core
from hyperudl.core import cli
from hyperudl.core import paths
from hyperudl.data.datasets import caches
from hyperudl.data.datasets import checks
from hyperudl.data.datasets import class_table
from hyperudl.data.datasets import duplicates
from hyperudl.data.datasets import fetch
from hyperudl.data.datasets import image_folder
from hyperudl.data.datasets import npz_file
from hyperudl.data.datasets import omniglot
from hyperudl.data.datasets import resolve
from hyperudl.data.datasets import splits
from hyperudl.data.datasets import tfds
from hyperudl.data.language import metavqa_build

KINDS = ('omniglot', 'folder', 'mini', 'tiered', 'npy', 'tfds', 'metavqa')
# The checksums of images_background.zip and images_evaluation.zip.
_OMNIGLOT_SHA256 = [
  'ad41ab679c8b5d90b271ef46be6987cc81211774a695c29dcc5367b2b26ee640',
  '1f61a8f3366785b057fc117d9228e78a16e3d976c8953b2a10fcc74cf0609cee',
]


def make_flags() -> flags.FlagValues:
  """Return the flags of this command, without those of absl itself."""
  string, boolean = flags.DEFINE_string, flags.DEFINE_bool
  kinds = functools.partial(flags.DEFINE_enum, enum_values=KINDS)
  size = functools.partial(
    flags.DEFINE_integer, lower_bound=0, upper_bound=4096
  )
  values = flags.FlagValues()
  for define, name, default, text in (
    (string, 'source', None, 'File or folder to convert.'),
    (string, 'name', None, 'Name of the set: NAME.npz is written.'),
    (string, 'out', 'data_numpy_dir', 'Folder to write to; made if missing.'),
    (string, 'download', '', 'omniglot: address of the folder of zip files.'),
    (string, 'split', '', 'File that says which class goes to which split.'),
    (kinds, 'kind', None, 'What the source is.'),
    (
      flags.DEFINE_list,
      'sha256',
      _OMNIGLOT_SHA256,
      'omniglot: checksums of the background and the evaluation zip file.',
    ),
    (
      size,
      'image_size',
      0,
      'Pixels per side after antialiased resizing; 0 keeps the size (28 for '
      'Omniglot).',
    ),
    (flags.DEFINE_integer, 'seed', 0, 'Seed of a split if one is chosen.'),
    (boolean, 'overwrite', False, 'Replace NAME.npz if it exists.'),
    (boolean, 'transpose', False, 'Exchange rows and columns of the images.'),
    (boolean, 'invert', False, 'Replace each value by 255 minus itself.'),
    (boolean, 'help', False, 'Show this.'),
  ):
    define(name=name, default=default, help=text, flag_values=values)
  return values


def read(
  kind: str, source: str, name: str, *, image_size: int = 0, seed: int = 0
) -> class_table.Table:
  """Read a set of any kind except metavqa.

  Args:
    kind: one of `KINDS`.
    source: file or folder.
    name: name of the set, which determines its published split.
    image_size: pixels per side; 0 keeps the size (28 for Omniglot).
    seed: seed of a split that has to be drawn.

  Returns:
    A `class_table.Table`.

  Raises:
    core.BadInput: faulty source; the message says what to do.
  """
  if not os.path.exists(source) and kind != 'tfds':
    raise core.BadInput(f'--source={source}: does not exist')
  if kind == 'omniglot':
    return omniglot.read(source, image_size or 28, seed)
  if kind == 'tfds':
    return tfds.read(source, image_size, seed)
  if kind == 'folder':
    return image_folder.read_tree(source, image_size)
  if kind == 'npy':
    if os.path.isdir(source):
      return caches.read_chunks(source, name)
    return caches.read_npy(source, name)
  form = caches.find_pickles(source) or ''
  if not form.startswith(kind):
    raise core.BadInput(
      f'--source={source}: has none of the files of --kind={kind}; --help '
      'lists them'
    )
  return caches.read_pickles(source, form)


def _transform(table, image_size, transpose, invert):
  """Resize, transpose and invert the images as the flags specify."""
  blocks = table.blocks
  if image_size:
    blocks = [image_folder.resize(block, image_size) for block in blocks]
  if transpose:
    blocks = [np.swapaxes(block, 1, 2) for block in blocks]
  if invert:
    blocks = [255 - block for block in blocks]
  return table._replace(blocks=blocks, base=None)


def run(values: flags.FlagValues) -> str:
  """Convert a set as the parsed flags specify and return a report."""
  for name in ('kind', 'source', 'name'):
    if not values[name].value:
      raise core.BadInput(f'--{name} is missing; --help explains all flags')
  if os.path.basename(values.name) != values.name:
    raise core.BadInput(f'--name={values.name}: expected a name, not a path')
  if values.name in resolve.BUILT_IN:
    raise core.BadInput(
      f'--name={values.name}: the name of a built-in set, which would be '
      'trained on in place of yours; choose another'
    )
  source = os.path.expanduser(values.source)
  out = _folder(values.out)
  is_folder = values.kind == 'metavqa'
  path = os.path.join(out, values.name + '.npz' * (not is_folder))
  is_built = is_folder and metavqa_build.is_built(source)
  if os.path.exists(path) and not values.overwrite and not is_built:
    raise core.BadInput(f'{path} exists; give --overwrite or another --name')
  if is_folder:
    return metavqa_build.convert(source, path)
  if values.download:
    _download(values)
  table = read(
    values.kind,
    source,
    values.name,
    image_size=values.image_size,
    seed=values.seed,
  )
  table = _transform(table, values.image_size, values.transpose, values.invert)
  if values.split:
    table = table._replace(
      split=splits.from_file(os.path.expanduser(values.split), table)
    )
  if table.split:
    class_table.check_disjoint(table, table.split)
  repeated = duplicates.count(duplicates.first_copies(table.blocks))
  if repeated:
    note = f'{repeated} images are copies of others; training keeps the copies '
    note += 'of an image in one split'
    table = table._replace(notes=(*table.notes, note))
  checks.require_contrast(table.blocks, table.where)
  sha256 = npz_file.write(table, path)
  return npz_file.describe(table, path, sha256)


def _folder(text):
  try:
    return paths.local(text)
  except ValueError as error:
    raise core.BadInput(f'--out={text}: {error}') from None


def _download(values):
  if values.kind != 'omniglot' or len(values.sha256) != len(omniglot.PARTS):
    raise core.BadInput(
      '--download is for --kind=omniglot, with two checksums in --sha256'
    )
  for part, sha256 in zip(omniglot.PARTS, values.sha256):
    name = f'images_{part}.zip'
    url = f'{values.download.rstrip("/")}/{name}'
    source = os.path.expanduser(values.source)
    fetch.fetch(url, os.path.join(source, name), sha256)


def main(argv: Sequence[str]) -> int:
  """Run the command line `argv` and return the exit code."""
  values = make_flags()
  try:
    unknown = values(argv)[1:]
    if values.help:
      sys.stdout.write(f'{__doc__}\nFlags:\n{values.get_help()}\n')
      return 0
    if unknown:
      raise core.BadInput(
        f'unexpected argument {unknown[0]!r}; flags are --x=y'
      )
    sys.stdout.write(run(values))
  except (flags.Error, core.Error) as error:
    sys.stderr.write('convert: ' + ' '.join(str(error).split()) + '\n')
    return getattr(error, 'exit_code', core.BadInput.exit_code)
  except KeyboardInterrupt:
    return cli.INTERRUPTED
  return 0


if __name__ == '__main__':
  flags.FLAGS.mark_as_parsed()  # this command has flags of its own
  cli.set_up_logging()  # how far a long reading is
  sys.exit(main(sys.argv))
