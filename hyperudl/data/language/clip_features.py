r"""Encodes the images and strings of Meta-VQA by a CLIP model.

  python -m hyperudl.data.language.clip_features \
    --tasks=data_numpy_dir/metavqa --images=coco --model=clip-vit-large-patch14

--tasks is a folder of meta_train.json, meta_test.json and templates.json, which
`python -m hyperudl.data.convert --kind=metavqa` makes; image_features.npz,
question_features.npz and answer_features.npz come beside them. --images is
searched, folders in it too, for files of the images' names; --model is a
folder, see `data/clip.py`. Needs the extra `clip`. The same command goes on
where it was stopped: finished parts of the images lie in
image_features.npz.parts until all is done. Exit codes: 0 done; 2 a bad flag,
file or model; 5 disk full or unwritable; 8 a device has too little memory; 130
Ctrl-C.
"""

import os
import shutil
import time
from zipfile import BadZipFile

from absl import flags
from absl import logging
import numpy as np

from hyperudl import core
from hyperudl.core import cli
from hyperudl.data.language import clip_encoder
from hyperudl.data.language import metavqa
from hyperudl.data.language import metavqa_tasks
from hyperudl.storage import filesystem

KINDS = ('image', 'question', 'answer')
PART = 2048  # images in a file of what is not finished


def read_strings(folder):
  """What is to be encoded of a folder's tasks.

  Returns:
    (names of images, questions, [(question, sentence)] of answers).

  Raises:
    core.BadInput: a fault in a file.
  """
  splits = metavqa_tasks.read_splits(folder)
  tasks = {
    name: task for part in splits.values() for name, task in part.items()
  }
  path = os.path.join(folder, 'templates.json')
  templates = metavqa_tasks.read_json(path)
  metavqa_tasks.check_templates(templates, tasks, path)
  images = dict.fromkeys(
    image
    for task in tasks.values()
    for part in metavqa_tasks.PARTS
    for image, _ in task[part]
  )
  answers = [
    (name, templates[name].format(answer))
    for name, task in tasks.items()
    for answer in task['answers']
  ]
  return list(images), list(tasks), answers


def encode(tasks, images, model, batch):
  """Writes the three banks of features into the folder `tasks`.

  Raises:
    core.BadInput: before a bank is written.
    core.Unwritable: the disk.
  """
  targets = [os.path.join(tasks, f'{kind}_features.npz') for kind in KINDS]
  for path in targets:
    for other in (path, path[:-1] + 'y'):
      if os.path.exists(other):
        raise core.BadInput(f'{other} exists; move it away to encode again')
  names, questions, answers = read_strings(tasks)
  files = clip_encoder.find_images(images)
  metavqa_tasks.require(
    names, files.__contains__, f'--images={images}: images without a file'
  )
  net = clip_encoder.load(model)
  found = _images(net, [(n, files[n]) for n in names], batch, targets[0])
  texts = lambda strings, what: _texts(net, strings, batch, what)
  banks = (
    (names, found),
    (questions, texts(questions, 'questions')),
    (
      [name for name, _ in answers],
      texts([sentence for _, sentence in answers], 'answers'),
    ),
  )
  # All three or none, and only what can be read.
  beside = [f'{path}.new.npz' for path in targets]
  for path, (labels, features) in zip(beside, banks, strict=True):
    _write(path, labels, features)
    metavqa.read_features(path, net.width)
  with filesystem.writing(tasks):
    for new, path in zip(beside, targets, strict=True):
      os.replace(new, path)
  shutil.rmtree(f'{targets[0]}.parts', ignore_errors=True)


def _texts(net, strings, batch, what):
  """f32[n, e]; a sentence that comes twice is encoded once."""
  different = list(dict.fromkeys(strings))
  call = lambda part: net.texts(*net.tokenize(part))
  features = _in_batches(call, different, batch, what)
  rows = {string: row for row, string in enumerate(different)}
  return features[[rows[string] for string in strings]]


def _images(net, files, batch, path):
  """f32[n, e]; finished parts are kept beside `path` until all are there."""
  call = lambda part: net.images(
    np.stack([clip_encoder.pixels(p, net.size) for p in part])
  )
  parts = []
  for start in range(0, len(files), PART):
    names, paths = zip(*files[start : start + PART])
    name = f'{start:08d}-{net.fingerprint:08x}.npz'
    part = os.path.join(f'{path}.parts', name)
    features = _read_part(part, names)
    if features is None:
      what = f'images {start} to {start + len(names)} of {len(files)}'
      features = _in_batches(call, paths, batch, what)
      with filesystem.writing(part):
        os.makedirs(os.path.dirname(part), exist_ok=True)
      _write(part, names, features)
    parts.append(features)
  return np.concatenate(parts)


def _read_part(path, names):
  """The features of a finished part, None if it is not there or another's."""
  try:
    with np.load(path, allow_pickle=False) as arrays:
      if arrays['names'].tolist() == list(names):
        return arrays['features']
  except (OSError, EOFError, ValueError, KeyError, BadZipFile):
    pass
  return None


def _in_batches(call, items, batch, what):
  """f32[n, e] of `call` on so many items at once, the last filled up."""
  parts, begun = [], time.monotonic()
  for start in range(0, len(items), batch):
    part = list(items[start : start + batch])
    full = part + [part[-1]] * (batch - len(part))
    parts.append(np.asarray(call(full))[: len(part)])
    done = start + len(part)
    speed = done / max(time.monotonic() - begun, 1e-9)
    logging.log_every_n_seconds(
      logging.INFO,
      '%s: %d of %d, %.1f/s, %.0f s left',
      *(10, what, done, len(items), speed, (len(items) - done) / speed),
    )
  return np.concatenate(parts)


def _write(path, names, features):
  """A bank as `metavqa.read_features` reads it, all of it or nothing."""
  temporary = f'{path}.{os.getpid()}.tmp'
  with filesystem.writing(path):
    try:
      with open(temporary, 'wb') as file:
        np.savez(file, names=np.array(names, str), features=features)
      os.replace(temporary, path)
    finally:
      if os.path.exists(temporary):
        os.remove(temporary)
  logging.info('%s: %d features of %d numbers', path, *features.shape)


def main(argv):
  """Encodes what the flags name."""
  del argv
  values = flags.FLAGS
  if values.batch < 1:
    raise core.BadInput(f'--batch={values.batch}: expected at least 1')
  cli.set_up()
  encode(values.tasks, values.images, values.model, values.batch)


if __name__ == '__main__':
  flags.DEFINE_string('tasks', None, 'Folder of the tasks; features go there.')
  flags.DEFINE_string('images', None, 'Folder of the image files.')
  flags.DEFINE_string('model', None, 'Folder of a CLIP model.')
  flags.DEFINE_integer('batch', 64, 'Images or strings at a time.')
  flags.mark_flags_as_required(['tasks', 'images', 'model'])
  cli.run(main)
