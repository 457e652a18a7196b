"""Builds the prepared TFDS sets in tests/fixtures, without TensorFlow.

python tools/build_tfds_fixture.py [folder]

Writes two sets exactly as tensorflow-datasets lays them out for array_record
files: `NAME/1.0.0/NAME-SPLIT.array_record-00000-of-00001` with one
tf.train.Example per record, `features.json`, `*.labels.txt` and
`dataset_info.json`; the metadata is written by tensorflow-datasets itself. Each
is packed as NAME.zip, because an array_record file is padded to 128 KB with
zeros.

tiny_digits: train and test share 12 classes, 14x14x1, like MNIST.
omniglot: train and test have different classes, in alphabets, 105x105x3 black
  on white; a split `small1` repeats a part of train, like TFDS's Omniglot.
"""

import io
import os
import sys
import tempfile
import zipfile

from array_record.python import array_record_module
import numpy as np
from PIL import Image
from PIL import ImageDraw
import tensorflow_datasets as tfds

_VERSION = '1.0.0'


def draw(label, drawing, side, ink, paper):
  """Draw a PNG file (bytes) of three strokes that depend on the label.

  Args:
    label: int, chooses the strokes.
    drawing: int, varies them a little.
    side: int, pixels per side.
    ink: colour of the strokes; an int for gray, a tuple for RGB.
    paper: colour behind them, like `ink`.
  """
  mode = 'L' if isinstance(ink, int) else 'RGB'
  image = Image.new(mode, (side, side), paper)
  pen = ImageDraw.Draw(image)
  strokes = np.random.default_rng(label).uniform(0.15, 0.85, (3, 4))
  moved = np.random.default_rng([label, drawing]).normal(0, 0.03, (3, 4))
  for stroke in np.rint((strokes + moved) * (side - 1)).astype(int).tolist():
    pen.line(stroke, fill=ink, width=max(1, side // 20))
  stream = io.BytesIO()
  image.save(stream, 'png', optimize=True)
  return stream.getvalue()


def write(folder, name, features, examples, keys):
  """Write one prepared set and pack it.

  Args:
    folder: str, where NAME.zip goes.
    name: str, of the set.
    features: dict of TFDS features.
    examples: dict of split -> list of dicts with encoded values.
    keys: (image key, label key).
  """
  features = tfds.features.FeaturesDict(features)
  serializer = tfds.core.example_serializer.ExampleSerializer(
    features.get_serialized_info()
  )
  with tempfile.TemporaryDirectory() as scratch:
    home = os.path.join(scratch, name, _VERSION)
    os.makedirs(home)
    infos = [
      _write_split(home, name, split, map(serializer.serialize_example, rows))
      for split, rows in examples.items()
    ]
    tfds.folder_dataset.write_metadata(
      data_dir=home,
      features=features,
      split_infos=infos,
      supervised_keys=keys,
      description='Generated strokes for the tests of hyperudl.',
      check_data=False,
    )
    _pack(scratch, os.path.join(folder, f'{name}.zip'))


def _write_split(home, name, split, records):
  template = tfds.core.ShardedFileTemplate(
    data_dir=home,
    dataset_name=name,
    split=split,
    filetype_suffix='array_record',
  )
  path = str(template.sharded_filepath(shard_index=0, num_shards=1))
  writer = array_record_module.ArrayRecordWriter(path, 'group_size:1')
  sizes = []
  for record in records:
    writer.write(record)
    sizes.append(len(record))
  writer.close()
  return tfds.core.SplitInfo(
    name=split,
    shard_lengths=[len(sizes)],
    num_bytes=sum(sizes),
    filename_template=template,
  )


def _pack(folder, path):
  with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED, compresslevel=9) as out:
    for place, _, files in sorted(os.walk(folder)):
      for name in sorted(files):
        file = os.path.join(place, name)
        info = zipfile.ZipInfo(os.path.relpath(file, folder))
        info.compress_type = zipfile.ZIP_DEFLATED
        with open(file, 'rb') as stream:
          out.writestr(info, stream.read())


def write_digits(folder):
  """Write tiny_digits.zip into `folder`."""
  examples = {
    split: [
      {'image': draw(label, drawing, 14, 255, 0), 'label': label}
      for drawing in drawings
      for label in range(12)
    ]
    for split, drawings in (('train', range(5)), ('test', range(5, 8)))
  }
  features = {
    'image': tfds.features.Image(shape=(14, 14, 1), encoding_format='png'),
    'label': tfds.features.ClassLabel(names=[f'digit{n}' for n in range(12)]),
  }
  write(folder, 'tiny_digits', features, examples, ('image', 'label'))


def write_omniglot(folder):
  """Write omniglot.zip into `folder`: 6 alphabets of 2 characters."""
  alphabets = ['Aleph', 'Beth', 'Gimel', 'Daleth', 'He', 'Waw']

  def rows(labels):
    return [
      {
        'image': draw(label, drawing, 105, (0, 0, 0), (255, 255, 255)),
        'alphabet': label // 2,
        'alphabet_char_id': label % 2,
        'label': label,
      }
      for drawing in range(3)
      for label in labels
    ]

  features = {
    'image': tfds.features.Image(shape=(105, 105, 3), encoding_format='png'),
    'alphabet': tfds.features.ClassLabel(names=alphabets),
    'alphabet_char_id': np.int64,
    'label': tfds.features.ClassLabel(
      names=[f'{name}_{n}' for name in alphabets for n in range(2)]
    ),
  }
  examples = {
    'train': rows(range(8)),
    'test': rows(range(8, 12)),
    'small1': rows(range(2)),
  }
  write(folder, 'omniglot', features, examples, ('image', 'label'))


if __name__ == '__main__':
  target = sys.argv[1] if len(sys.argv) > 1 else 'tests/fixtures'
  write_digits(target)
  write_omniglot(target)
