"""Converts an image set into the .npz file that hyperudl trains on.

python -m hyperudl.data.convert --kind=KIND --source=PATH --name=NAME
                                [--out=data_numpy_dir] [--image_size=28] ...

KIND      PATH
omniglot  folder with images_background.zip and images_evaluation.zip, or with
          what is in them; becomes 28x28, ink = 255. --download=URL fetches
          missing zip files into PATH first.
folder    <class>/*.png, or <alphabet>/<class>/*.png, or either of them under
          train/, valid/ and test/ (.jpg and others are fine too)
mini      mini-ImageNet: folder with mini-imagenet-cache-{train,val,test}.pkl
          or miniImageNet_category_split_{train_phase_train,val,test}.pickle
tiered    tieredImageNet: folder with {train,val,test}_images.npz and
          {train,val,test}_labels.pkl
npy       HyperTransformer's cache: NAME.npy, NAME_ch_first.npy, or a folder of
          chunk_*.npy
metavqa   VQA v2: folder with its question and annotation files of train2014 and
          val2014 and templates.json (question -> sentence with one {}); becomes
          the folder NAME of few-shot tasks, without features (see
          data/metavqa.py). A folder that has meta_train.json already is only
          described, with the statistics of its tasks.
tfds      a set that tensorflow-datasets prepared as array_record, such as
          ~/tensorflow_datasets/mnist/3.0.1; needs no TensorFlow

--transpose exchanges rows and columns of every image (EMNIST is stored that
way), --invert makes dark light (ink = 255 is what the other sets have).
--split=FILE says which class goes where: lines `<alphabet or class> <train,
valid, test, or none to leave it out>`. configs/splits/omniglot_background.txt
is the one of the Omniglot results in docs/results, for images_background.zip
alone as --source.

Pickles are read without running them. What is written is NAME.npz (images,
class_names, alphabets and split as far as they are known) and its checksum,
NAME.npz.sha256. Train on it with --config.data.dataset=NAME.

Exit codes: 0 done, 1 download failed, 2 bad flag or data (nothing written),
5 not writable.
"""

import os
import sys
import zipfile

from absl import flags
import numpy as np

from hyperudl import core
from hyperudl.data.datasets import caches
from hyperudl.data.datasets import class_table
from hyperudl.data.datasets import fetch
from hyperudl.data.datasets import image_folder
from hyperudl.data.datasets import npy
from hyperudl.data.datasets import omniglot
from hyperudl.data.datasets import resolve
from hyperudl.data.datasets import splits
from hyperudl.data.datasets import tfds
from hyperudl.data.language import metavqa_build

KINDS = ('omniglot', 'folder', 'mini', 'tiered', 'npy', 'tfds', 'metavqa')
# The checksums of images_background.zip and images_evaluation.zip.
_OMNIGLOT_SHA256 = (
  'ad41ab679c8b5d90b271ef46be6987cc81211774a695c29dcc5367b2b26ee640',
  '1f61a8f3366785b057fc117d9228e78a16e3d976c8953b2a10fcc74cf0609cee',
)


def make_flags():
  """The flags of the command line, as an own `absl.flags.FlagValues`."""
  values = flags.FlagValues()
  for name, default, text in (
    ('source', None, 'File or folder to convert.'),
    ('name', None, 'Name of the set: NAME.npz is written.'),
    ('out', 'data_numpy_dir', 'Folder to write to; made if missing.'),
    ('download', '', 'omniglot: address of the folder with the zip files.'),
    ('split', '', 'File that says which class goes to which split.'),
  ):
    flags.DEFINE_string(name, default, text, flag_values=values)
  flags.DEFINE_enum(
    'kind', None, KINDS, 'What the source is.', flag_values=values
  )
  flags.DEFINE_list(
    'sha256',
    list(_OMNIGLOT_SHA256),
    'omniglot: checksums of the background and the evaluation zip file.',
    flag_values=values,
  )
  flags.DEFINE_integer(
    'image_size',
    0,
    'Pixels per side after antialiased resizing; 0 keeps the size (28 for '
    'Omniglot).',
    lower_bound=0,
    flag_values=values,
  )
  flags.DEFINE_integer(
    'seed', 0, 'Seed of a split that has to be chosen.', flag_values=values
  )
  flags.DEFINE_bool(
    'overwrite', False, 'Replace NAME.npz if it exists.', flag_values=values
  )
  for name, text in (
    ('transpose', 'Exchange rows and columns of the images.'),
    ('invert', 'Replace each value by 255 minus itself.'),
  ):
    flags.DEFINE_bool(name, False, text, flag_values=values)
  flags.DEFINE_bool('help', False, 'Show this.', flag_values=values)
  return values


def read(kind, source, name, *, image_size=0, seed=0):
  """Reads a set of any kind.

  Args:
    kind: str, one of `KINDS`.
    source: str, file or folder.
    name: str, the name of the set, by which published splits are known.
    image_size: int, pixels per side; 0 keeps the size (28 for Omniglot).
    seed: int, of a split that has to be chosen.

  Returns:
    A `table.Table`.

  Raises:
    BadInput: what is wrong with the source, and what to do.
  """
  if not os.path.exists(source) and kind != 'tfds':
    raise core.BadInput(f'--source={source}: does not exist')
  if kind == 'omniglot':
    return omniglot.read(source, image_size=image_size or 28, seed=seed)
  if kind == 'tfds':
    return tfds.read(source, image_size=image_size, seed=seed)
  if kind == 'folder':
    data = image_folder.read_tree(source, image_size)
  elif kind == 'npy' and os.path.isdir(source):
    data = caches.read_chunks(source, name)
  elif kind == 'npy':
    data = caches.read_npy(source, name)
  else:
    found = caches.find_pickles(source) or ''
    if not found.startswith(kind):
      raise core.BadInput(
        f'--source={source}: has none of the files of --kind={kind}; --help '
        'lists them'
      )
    data = caches.read_pickles(source, found)
  if image_size:
    blocks = [image_folder.resize(block, image_size) for block in data.blocks]
    data = data._replace(blocks=blocks, base=None)
  return data


def write(data, path):
  """Writes a set as a `.npz` file, all of it or nothing.

  The same set always gives the same bytes. Big sets are stored uncompressed,
  because training then leaves them on disk.

  Args:
    data: a `table.Table`.
    path: str, ending in .npz.

  Raises:
    Unwritable: the disk is full or the folder cannot be written.
  """
  part = f'{path}.part'
  try:
    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    with zipfile.ZipFile(part, 'w') as archive:
      _write_images(archive, data)
      for field in ('class_names', 'alphabets', 'split'):
        values = getattr(data, field)
        if values:
          _write_array(archive, field, np.array(values, dtype=str))
    os.replace(part, path)
    with open(f'{path}.sha256', 'w', encoding='ascii') as stream:
      stream.write(f'{fetch.digest(path)}  {os.path.basename(path)}\n')
  except OSError as error:
    raise core.Unwritable(
      f'{path}: cannot be written ({error.strerror})'
    ) from None
  finally:
    if os.path.exists(part):
      os.remove(part)


def _write_images(archive, data):
  counts = [len(block) for block in data.blocks]
  size = data.blocks[0].shape[1:]
  if size[-1] == 1:
    size = size[:-1]
  shape = (sum(counts), *size)
  if len(set(counts)) == 1:
    shape = (len(counts), counts[0], *size)
  else:
    labels = np.repeat(np.arange(len(counts)), counts)
    _write_array(archive, 'labels', labels)
  big = sum(block.nbytes for block in data.blocks) >= npy.MAP_BYTES
  method = zipfile.ZIP_STORED if big else zipfile.ZIP_DEFLATED
  with _member(archive, 'images', method) as stream:
    header = {'descr': '|u1', 'fortran_order': False, 'shape': shape}
    np.lib.format.write_array_header_1_0(stream, header)
    for block in data.blocks:
      stream.write(np.ascontiguousarray(block).data)


def _write_array(archive, name, array):
  with _member(archive, name, zipfile.ZIP_DEFLATED) as stream:
    np.lib.format.write_array(stream, array, allow_pickle=False)


def _member(archive, name, method):
  info = zipfile.ZipInfo(f'{name}.npy')  # its fixed date keeps bytes the same
  info.compress_type = method
  return archive.open(info, 'w', force_zip64=True)


def describe(data, path):
  """A report of the set and of the file at `path` (str), several lines."""
  rows = [len(block) for block in data.blocks]
  height, width, channels = data.blocks[0].shape[1:]
  lines = [
    f'{len(rows)} classes, {sum(rows)} images ({min(rows)} to {max(rows)} per '
    f'class), {height}x{width}x{channels}, from {data.where}'
  ]
  if data.alphabets:
    lines.append(f'{len(set(data.alphabets))} alphabets')
  for split in (*class_table.SPLITS, class_table.UNUSED) if data.split else ():
    own = [n for n, part in zip(rows, data.split) if part == split]
    if split == class_table.UNUSED and not own:
      continue
    lines.append(f'{split}: {len(own)} classes, {sum(own)} images')
  if not data.split:
    lines.append('no split: data.split_by says how training splits it')
  megabytes = os.path.getsize(path) / 1e6
  lines.append(f'wrote {path} ({megabytes:.1f} MB)')
  lines.append(f'sha256 {fetch.digest(path)}')
  return '\n'.join(lines) + '\n'


def run(values):
  """Converts as the parsed flags say and returns the report."""
  for name in ('kind', 'source', 'name'):
    if not values[name].value:
      raise core.BadInput(f'--{name} is missing; --help explains all flags')
  if os.path.basename(values.name) != values.name:
    raise core.BadInput(f'--name={values.name}: expected a name, not a path')
  if values.kind == 'metavqa':
    folder = os.path.join(values.out, values.name)
    source = os.path.expanduser(values.source)
    there = os.path.exists(folder) and not metavqa_build.is_built(source)
    if there and not values.overwrite:
      raise core.BadInput(
        f'{folder} exists; give --overwrite or another --name'
      )
    return metavqa_build.convert(source, folder)
  path = os.path.join(values.out, f'{values.name}.npz')
  if os.path.exists(path) and not values.overwrite:
    raise core.BadInput(f'{path} exists; give --overwrite or another --name')
  if values.download:
    _download(values)
  data = read(
    values.kind,
    os.path.expanduser(values.source),
    values.name,
    image_size=values.image_size,
    seed=values.seed,
  )
  data = image_folder.turned(data, values.transpose, values.invert)
  if values.split:
    data = data._replace(split=splits.from_file(values.split, data))
  if data.split:
    class_table.check_disjoint(data, data.split)
  write(data, path)
  resolve.read_npz(path)  # what was written can be trained on
  return describe(data, path)


def _download(values):
  if values.kind != 'omniglot' or len(values.sha256) != len(omniglot.PARTS):
    raise core.BadInput(
      '--download is for --kind=omniglot, with two checksums in --sha256'
    )
  try:
    os.makedirs(values.source, exist_ok=True)
  except OSError as error:
    raise core.Unwritable(f'{values.source}: {error.strerror}') from None
  for part, sha256 in zip(omniglot.PARTS, values.sha256):
    name = f'images_{part}.zip'
    url = f'{values.download.rstrip("/")}/{name}'
    fetch.fetch(url, os.path.join(values.source, name), sha256)


def main(argv):
  """Runs the command line `argv` (list of str) and returns the exit code."""
  values = make_flags()
  try:
    rest = values(argv)[1:]
    if values.help:
      sys.stdout.write(f'{__doc__}\nFlags:\n{values.get_help()}\n')
      return 0
    if rest:
      raise core.BadInput(f'unexpected argument {rest[0]!r}; flags are --x=y')
    sys.stdout.write(run(values))
  except flags.Error as error:
    sys.stderr.write('convert: ' + ' '.join(str(error).split()) + '\n')
    return core.BadInput.exit_code
  except core.Error as error:
    sys.stderr.write('convert: ' + ' '.join(str(error).split()) + '\n')
    return error.exit_code
  except KeyboardInterrupt:
    return 130
  return 0


if __name__ == '__main__':
  sys.exit(main(sys.argv))
