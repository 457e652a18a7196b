"""Reads image sets that tensorflow-datasets has prepared as array_record.

This is the only module that imports tensorflow-datasets, and only when a set is
read. Files in array_record format can be read without TensorFlow; those in the
default tfrecord format cannot.
"""

import contextlib
import io
import json
import os
import pathlib

from absl import logging
import numpy as np
from PIL import Image

from hyperudl.core import BadInput
from hyperudl.data.datasets import checks
from hyperudl.data.datasets import class_table
from hyperudl.data.datasets import image_folder
from hyperudl.data.datasets import splits

# Names of classes in features.json, and those whose modules may be imported.
_CLASS_KEYS = ('pythonClassName', 'python_class_name', 'type')
_FEATURES = 'tensorflow_datasets.core.features.'
MAX_PIXELS = 1 << 24  # of an image
SPARE_BYTES = 1 << 27  # that the images of a small set may take
_EXPANSION = 8  # and for each byte of a large one
_VALID_FRACTION = 1 / 6  # of train, if test has different classes


def read(source: str, image_size: int = 0, seed: int = 0) -> class_table.Table:
  """Read a prepared set.

  If train and test have different classes (as in Omniglot), the split is kept;
  without a validation split a sixth of the train alphabets (or classes) becomes
  valid. If they share classes (as in MNIST), the images of each class are
  merged and the set has no split.
  Omniglot becomes gray with ink = 255, and EMNIST is transposed to be upright.
  TFDS shuffles, so the drawers are not in order.

  Args:
    source: the folder with `dataset_info.json` (such as
      `~/tensorflow_datasets/mnist/3.0.1`) or the one above it.
    image_size: pixels per side after resizing; 0 keeps the size (28 for
      Omniglot).
    seed: seed of the split.

  Returns:
    A `class_table.Table`.

  Raises:
    BadInput: if the set is not prepared, has another file format or is not one
      of labelled images; the message gives the command that prepares it.
  """
  folder = _find(source)
  builder = _make_builder(folder)
  info = builder.info
  size = image_size or 28 * (info.name == 'omniglot')
  image_key, label_key = info.supervised_keys or ('image', 'label')
  if not {image_key, label_key} <= set(info.features):
    raise BadInput(
      f'{folder}: has features {", ".join(info.features)}; expected image and '
      'label'
    )
  keys = image_key, label_key
  images, alphabets = _read_images(builder, folder, keys, size)
  names, groups = _names(info.features[label_key], sorted(images)), None
  if len(alphabets) == len(images):
    numbers = [alphabets[label] for label in sorted(images)]
    groups = _names(info.features['alphabet'], numbers)
  return _make_table(images, names, groups, folder, seed)


def _read_images(builder, folder, keys, size):
  """Return label -> split -> list of images, and label -> alphabet."""
  image_key, label_key = keys
  feature = builder.info.features[image_key]
  images: dict = {}  # label -> split -> list of images
  alphabets: dict[int, int] = {}
  left = SPARE_BYTES + _EXPANSION * _record_bytes(folder)
  for row, name, example in _examples(builder, folder, image_key):
    where = f'{folder}[{name}][{row}]'
    label = int(example[label_key])
    image = _decode(feature, example[image_key], where)
    image = _prepare(image, builder.info.name, size, where)
    left -= image.nbytes
    if left < 0:
      raise BadInput(
        f'{where}: these images would take {_EXPANSION} times as much memory '
        'as their files; set --image_size'
      )
    parts = images.setdefault(label, {})
    parts.setdefault(class_table.to_split(name) or 'train', []).append(image)
    if 'alphabet' in example:
      alphabets[label] = int(example['alphabet'])
  return images, alphabets


def _find(source):
  """Return the folder of the newest version of the one set in `source`."""
  for depth in ('', '*/', '*/*/'):
    files = pathlib.Path(source).glob(f'{depth}dataset_info.json')
    folders = [file.parent for file in files]
    sets = sorted({folder.parent.name for folder in folders})
    if len(sets) > 1 and depth == '*/*/':
      raise BadInput(
        f'{source}: has several sets: {", ".join(sets)}; give one of them'
      )
    if folders:
      return str(max(folders, key=_version))
  raise BadInput(
    f'{source}: no dataset_info.json, so nothing is prepared there. '
    + _advice(source)
  )


def _version(folder):
  numbers = folder.name.split('.')
  return [int(number) if number.isdigit() else -1 for number in numbers]


def _advice(folder):
  # TFDS does not overwrite a prepared set: the new one goes to another folder.
  exists = os.path.exists(os.path.join(folder, 'dataset_info.json'))
  config = _metadata(folder).get('configName', '')
  path = pathlib.Path(folder).expanduser().absolute()
  while path.name and (
    path.name == config or path.name.replace('.', '').isdigit()
  ):
    path = path.parent
  name = f'{path.name}/{config}' if config else path.name
  home = str(path.parent) + '_array_record' * exists
  return (
    'Prepare it once where TensorFlow is (pip install tensorflow-cpu): python '
    f'-c "import tensorflow_datasets as t; t.builder({name!r}, '
    f"data_dir={home!r}, file_format='array_record').download_and_prepare()\""
  )


def _metadata(folder):
  try:
    text = pathlib.Path(folder, 'dataset_info.json').read_text('utf-8')
    return dict(json.loads(text))
  except (OSError, ValueError, TypeError):
    return {}


def _check_features(folder):
  """Refuse features of other packages, whose modules would be imported."""
  path = pathlib.Path(folder, 'features.json')
  pending = [json.loads(path.read_text('utf-8'))]
  while pending:
    value = pending.pop()
    if isinstance(value, list):
      pending += value
    for key, entry in value.items() if isinstance(value, dict) else ():
      pending.append(entry)
      if key in _CLASS_KEYS and not str(entry).startswith(_FEATURES):
        raise BadInput(
          f'{path}: the feature {str(entry)[:100]!r} is not one of '
          'tensorflow-datasets; prepare the set without it'
        )


def _record_bytes(folder):
  return sum(path.stat().st_size for path in pathlib.Path(folder).iterdir())


def _decode(feature, data, where):
  """Decode an image of a record unless it has too many pixels."""
  with checks.reading(where, 'a damaged image', 'prepare the set again'):
    with Image.open(io.BytesIO(data)) as image:
      width, height = image.size
    if width * height > MAX_PIXELS:
      raise BadInput(
        f'{where}: an image of {width}x{height} pixels; at most {MAX_PIXELS} '
        'are read'
      )
    return feature.decode_example_np(data)


def _make_builder(folder):
  info = _metadata(folder)
  form = info.get('fileFormat', 'tfrecord')
  if 'array_record' not in (form, *info.get('alternativeFileFormats', ())):
    reason = f'prepared as {form}, which only TensorFlow reads'
    raise BadInput(
      f'{folder}: {reason if info else "dataset_info.json is damaged"}. '
      f'{_advice(folder)}'
    )
  try:
    import tensorflow_datasets as tfds
  except ImportError as error:
    raise BadInput(
      f'{folder}: tensorflow-datasets is missing ({error}); pip install '
      'tensorflow-datasets importlib_resources'
    ) from None
  with checks.reading(folder, 'cannot be read', _advice(folder)):
    _check_features(folder)
    with _only_errors():
      return tfds.builder_from_directory(folder)


@contextlib.contextmanager
def _only_errors():
  """Hide what the library logs, such as a hint at OpenCV."""
  verbosity = logging.get_verbosity()
  logging.set_verbosity(logging.ERROR)
  try:
    yield
  finally:
    logging.set_verbosity(verbosity)


def _examples(builder, folder, image_key):
  """Yield (row, split, example) of all examples.

  Where some of the set's splits have usual names, such as validation or dev,
  others, such as Omniglot's `small1`, are subsets of these and are left out.
  """
  from tensorflow_datasets import decode

  decoders = {image_key: decode.SkipDecoding()}
  known = [name for name in builder.info.splits if class_table.to_split(name)]
  known.sort(key=lambda n: class_table.SPLITS.index(class_table.to_split(n)))
  with _only_errors():
    for split in known or list(builder.info.splits):
      where = f'{folder} ({split})'
      with checks.reading(where, 'cannot be read', _advice(folder)):
        source = builder.as_data_source(split, decoders=decoders)
        for row, example in enumerate(source):
          yield row, split, example


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


def _names(feature, numbers):
  # A class label has names, unless only their number was declared.
  name = getattr(feature, 'int2str', str)
  return tuple(str(name(number)) for number in numbers)


def _make_table(images, names, groups, folder, seed):
  blocks, splits_of = [], []
  for label in sorted(images):
    parts = [s for s in class_table.SPLITS if s in images[label]]
    splits_of.append(parts)
    blocks.append([image for part in parts for image in images[label][part]])
  shapes = sorted({image.shape for block in blocks for image in block})
  if len(shapes) > 1:
    raise BadInput(
      f'{folder}: {len(shapes)} sizes of images, such as {shapes[0]} and '
      f'{shapes[1]}; set --image_size'
    )
  blocks = [np.stack(block) for block in blocks]
  split = _split(splits_of, groups or names, seed)
  return class_table.check(
    class_table.Table(folder, blocks, names, groups, split)
  )


def _split(splits_of, groups, seed):
  """Return the split of each class, or None if train and test share classes."""
  if any(len(parts) > 1 for parts in splits_of):
    return None
  split = [part for (part,) in splits_of]
  train = [group for group, part in zip(groups, split) if part == 'train']
  if set(split) == {'train', 'test'} and len(set(train)) > 1:
    redrawn = iter(splits.by_group(train, seed, (_VALID_FRACTION, 0)))
    split = [next(redrawn) if part == 'train' else part for part in split]
  return tuple(split) if len(set(split)) > 1 else None
