"""Reads sets that tensorflow-datasets has prepared as array_record.

The only module that imports tensorflow-datasets, and only when a set is read:
its array_record files need no TensorFlow, its default tfrecord files do.
"""

import glob
import json
import os

from absl import logging
import numpy as np

from hyperudl.core import BadInput
from hyperudl.data.datasets import class_table
from hyperudl.data.datasets import image_folder
from hyperudl.data.datasets import splits

# TFDS's names of the splits that are read; others (Omniglot's `small1`) are
# parts of these again.
_SPLITS = {'train': 'train', 'validation': 'valid', 'test': 'test'}
_VALID_SHARE = 1 / 6  # of train, where the classes of test are others


def read(source, *, image_size=0, seed=0):
  """Reads a prepared set.

  Where train and test have different classes (as in Omniglot) they stay what
  they are, and if there is no validation split a sixth of the train alphabets
  (or classes) is dealt to valid. Where they share classes (as in MNIST) the
  images of a class are put together and the set has no split.
  Omniglot becomes gray with ink = 255 and EMNIST is transposed, as people
  expect them. TFDS shuffles, so the drawers are not in order.

  Args:
    source: str, the folder with `dataset_info.json` (such as
      `~/tensorflow_datasets/mnist/3.0.1`) or the one above it.
    image_size: int, pixels per side after resizing; 0 keeps the size (28 for
      Omniglot).
    seed: int, of the split.

  Returns:
    A `table.Table`.

  Raises:
    BadInput: not prepared, another file format, or not a set of images with
      labels; with the command that helps.
  """
  folder = _find(source)
  builder = _builder(folder)
  info = builder.info
  omniglot = info.name == 'omniglot'
  size = image_size or (28 if omniglot else 0)
  keys = info.supervised_keys or ('image', 'label')
  if any(key not in info.features for key in keys):
    raise BadInput(
      f'{folder}: has features {", ".join(info.features)}; expected image and '
      'label'
    )
  used = [name for name in _SPLITS if name in info.splits]
  groups = {}  # (label, split) -> images
  alphabets = {}
  for name in used or list(info.splits):
    for row, example in enumerate(_examples(builder, name, folder)):
      where = f'{folder}[{name}][{row}]'
      image = _prepare(example[keys[0]], info.name, size, where)
      label = int(example[keys[1]])
      groups.setdefault((label, _SPLITS.get(name, 'train')), []).append(image)
      if 'alphabet' in example:
        alphabets[label] = int(example['alphabet'])
  return _make_table(groups, alphabets, info.features, keys[1], folder, seed)


def _find(source):
  for depth in ('', '*', '*/*'):
    found = glob.glob(
      os.path.join(glob.escape(source), depth, 'dataset_info.json')
    )
    configs = {os.path.dirname(os.path.dirname(path)) for path in found}
    if len(configs) > 1 and depth == '*/*':
      names = ', '.join(sorted(os.path.basename(path) for path in configs))
      raise BadInput(f'{source}: has several sets: {names}; give one of them')
    if found:
      newest = max(found, key=lambda path: _version(os.path.dirname(path)))
      return os.path.dirname(newest)
  raise BadInput(
    f'{source}: no dataset_info.json, so nothing is prepared there. '
    + _advice(source)
  )


def _version(folder):
  numbers = os.path.basename(folder).split('.')
  return [int(number) if number.isdigit() else -1 for number in numbers]


def _advice(folder):
  # TFDS keeps what a folder has, so the new set goes into one beside it.
  info = _metadata(folder)
  taken = os.path.exists(os.path.join(folder, 'dataset_info.json'))
  config = info.get('configName', '')
  parts = os.path.abspath(os.path.expanduser(folder)).split(os.sep)
  while len(parts) > 2 and (
    parts[-1] == config or parts[-1].replace('.', '').isdigit()
  ):
    parts.pop()
  name = f'{parts[-1]}/{config}' if config else parts[-1]
  home = (os.sep.join(parts[:-1]) or os.sep) + '_array_record' * taken
  return (
    'Prepare it once where TensorFlow is (pip install tensorflow-cpu): python '
    f'-c "import tensorflow_datasets as t; t.builder({name!r}, '
    f"data_dir={home!r}, file_format='array_record').download_and_prepare()\""
  )


def _metadata(folder):
  try:
    path = os.path.join(folder, 'dataset_info.json')
    with open(path, encoding='utf-8') as stream:
      return dict(json.load(stream))
  except (OSError, ValueError, TypeError):
    return {}


def _builder(folder):
  info = _metadata(folder)
  form = info.get('fileFormat', 'tfrecord')
  if 'array_record' not in (form, *info.get('alternativeFileFormats', ())):
    found = f'prepared as {form}, which only TensorFlow reads'
    raise BadInput(
      f'{folder}: {found if info else "dataset_info.json is damaged"}. '
      f'{_advice(folder)}'
    )
  try:
    import tensorflow_datasets as tfds
  except ImportError as error:
    raise BadInput(
      f'{folder}: tensorflow-datasets is missing ({error}); pip install '
      'tensorflow-datasets importlib_resources'
    ) from None
  try:
    return tfds.builder_from_directory(folder)
  # Broken metadata shows as whatever its parser stumbles over.
  except Exception as error:
    raise _damaged(folder, '', error) from None


def _damaged(folder, what, error):
  reason = ' '.join(str(error).split())[:200]
  return BadInput(
    f'{folder}{what}: cannot be read ({type(error).__name__}: {reason}). '
    + _advice(folder)
  )


def _examples(builder, split, folder):
  verbosity = logging.get_verbosity()
  logging.set_verbosity(logging.ERROR)  # it warns that OpenCV were faster
  try:
    yield from builder.as_data_source(split)
  # Missing or cut shards, images that do not decode.
  except Exception as error:
    raise _damaged(folder, f' ({split})', error) from None
  finally:
    logging.set_verbosity(verbosity)


def _prepare(image, name, size, where):
  image = np.asarray(image)
  if image.ndim != 3 or image.dtype != np.uint8:
    raise BadInput(
      f'{where}: {image.dtype} image of shape {image.shape}; expected uint8 '
      '[H, W, C]'
    )
  if name == 'omniglot':
    image = 255 - image[..., :1]
  if name.startswith('emnist'):
    image = image.transpose(1, 0, 2)
  return image_folder.resize(image[None], size)[0] if size else image


def _make_table(groups, alphabets, features, label_key, folder, seed):
  shapes = {image.shape for rows in groups.values() for image in rows}
  if len(shapes) > 1:
    raise BadInput(
      f'{folder}: {len(shapes)} sizes of images, such as '
      f'{" and ".join(str(shape) for shape in sorted(shapes)[:2])}; set '
      '--image_size'
    )
  rows, parts = {}, {}
  for label, part in sorted(
    groups, key=lambda pair: (pair[0], class_table.SPLITS.index(pair[1]))
  ):
    rows.setdefault(label, []).extend(groups[label, part])
    parts.setdefault(label, []).append(part)
  labels = list(rows)
  names = tuple(_name(features[label_key], label) for label in labels)
  scripts = None
  if len(alphabets) == len(labels):
    scripts = tuple(
      _name(features['alphabet'], alphabets[label]) for label in labels
    )
  return class_table.check(
    class_table.Table(
      folder,
      [np.stack(rows[label]) for label in labels],
      names,
      scripts,
      _split([parts[label] for label in labels], scripts or names, seed),
    )
  )


def _name(feature, number):
  # A class label knows names, unless it was declared by their number alone.
  return str(getattr(feature, 'int2str', str)(number))


def _split(parts, groups, seed):
  # parts: for each class the splits that its images come from.
  if any(len(own) > 1 for own in parts):
    return None
  split = [own[0] for own in parts]
  train = [group for group, part in zip(groups, split) if part == 'train']
  if set(split) == {'train', 'test'} and len(set(train)) > 1:
    dealt = iter(splits.by_group(train, seed, (_VALID_SHARE, 0)))
    split = [next(dealt) if part == 'train' else part for part in split]
  return tuple(split) if len(set(split)) > 1 else None
