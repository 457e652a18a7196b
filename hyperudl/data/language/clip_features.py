r"""Encodes the images and strings of Meta-VQA with a CLIP model.

  python -m hyperudl.data.language.clip_features \
    --tasks=data_numpy_dir/metavqa --images=coco --model=clip-vit-large-patch14

--tasks is a folder with meta_train.json, meta_test.json and templates.json, as
made by `python -m hyperudl.data.convert --kind=metavqa`; image_features.npz,
question_features.npz and answer_features.npz are written to it. --images and
its subfolders are searched for the image files by name; --model is a folder,
see `data/language/clip_encoder.py`. Needs the extra `clip`. To resume, run the
same command again: finished parts of the images are in image_features.npz.parts
until all are done. Exit codes: 0 done; 2 bad flag, file or model; 5 disk full
or unwritable; 8 a device has too little memory; 130 Ctrl-C.
"""

import io
import os
import shutil
import tempfile
import time
from zipfile import BadZipFile

from absl import flags
from absl import logging
import numpy as np

from hyperudl import core
from hyperudl.core import cli
from hyperudl.core import paths
from hyperudl.data.language import clip_encoder
from hyperudl.data.language import metavqa
from hyperudl.data.language import metavqa_tasks
from hyperudl.storage import filesystem

KINDS = ('image', 'question', 'answer')
PART = 2048  # images per file of partial results


def read_strings(
  folder: str,
) -> tuple[list[str], list[str], list[tuple[str, str]]]:
  """Read the names and strings of a folder's tasks that are to be encoded.

  Returns:
    (names of images, questions, [(question, sentence)] of answers).

  Raises:
    core.BadInput: a faulty file.
  """
  splits = metavqa_tasks.read_splits(folder)
  tasks = {
    name: task for part in splits.values() for name, task in part.items()
  }
  path = os.path.join(folder, 'templates.json')
  templates = metavqa_tasks.read_json(path)
  metavqa_tasks.check_templates(templates, tasks, path)
  answers = [
    (name, templates[name].format(answer))
    for name, task in tasks.items()
    for answer in task['answers']
  ]
  return metavqa_tasks.image_names(tasks), list(tasks), answers


def encode(tasks: str, images: str, model: str, batch: int) -> None:
  """Encode images, questions and answers, and write three feature files.

  Args:
    tasks: folder of tasks, to which the files are written.
    images: folder of image files.
    model: folder of a CLIP model.
    batch: number of images or strings at a time.

  Raises:
    core.BadInput: faulty input; no feature file has been written.
    core.Unwritable: the disk is full or the folder cannot be written.
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
  encoder = clip_encoder.load(model)
  parts = f'{targets[0]}.parts'
  features = _images(encoder, [(n, files[n]) for n in names], batch, parts)
  sentences = [sentence for _, sentence in answers]
  banks = (
    (names, features),
    (questions, _texts(encoder, questions, batch, 'questions')),
    (
      [question for question, _ in answers],
      _texts(encoder, sentences, batch, 'answers'),
    ),
  )
  # Write all three or none, and only after reading them back.
  with (
    filesystem.writing(tasks),
    tempfile.TemporaryDirectory(dir=tasks) as folder,
  ):
    new_paths = [os.path.join(folder, os.path.basename(p)) for p in targets]
    for path, (labels, features) in zip(new_paths, banks, strict=True):
      _write(path, labels, features)
      metavqa.read_features(path, encoder.width)
    for new, path in zip(new_paths, targets, strict=True):
      os.replace(new, path)
  shutil.rmtree(parts, ignore_errors=True)


def _texts(encoder, strings, batch, label):
  """Encode strings as f32[n, e], each different one only once."""
  unique = list(dict.fromkeys(strings))
  call = lambda part: encoder.texts(*encoder.tokenize(part))
  features = _in_batches(call, unique, batch, label)
  rows = {string: row for row, string in enumerate(unique)}
  return features[[rows[string] for string in strings]]


def _images(encoder, files, batch, folder):
  """Encode image files as f32[n, e], saving finished parts in a folder."""
  call = lambda paths: encoder.images(
    np.stack([clip_encoder.pixels(path, encoder.size) for path in paths])
  )
  parts = []
  for start in range(0, len(files), PART):
    names, paths = zip(*files[start : start + PART])
    name = f'{start:08d}-{encoder.fingerprint:08x}.npz'
    path = os.path.join(folder, name)
    features = _read_part(path, names)
    if features is None:
      label = f'images {start} to {start + len(names)} of {len(files)}'
      features = _in_batches(call, paths, batch, label)
      with filesystem.writing(path):
        os.makedirs(folder, exist_ok=True)
      _write(path, names, features)
    parts.append(features)
  return np.concatenate(parts)


def _read_part(path, names):
  """Return the features of a finished part, or None if it has other names."""
  try:
    with np.load(path, allow_pickle=False) as arrays:
      if arrays['names'].tolist() == list(names):
        return arrays['features']
  except (OSError, EOFError, ValueError, KeyError, BadZipFile):
    pass
  return None


def _in_batches(call, items, batch, label):
  """Return f32[n, e]: `call` on batches of equal size, the last one padded."""
  parts, started = [], time.monotonic()
  for start in range(0, len(items), batch):
    part = list(items[start : start + batch])
    full = part + [part[-1]] * (batch - len(part))
    parts.append(np.asarray(call(full))[: len(part)])
    done = start + len(part)
    speed = done / max(time.monotonic() - started, 1e-9)
    logging.log_every_n_seconds(
      logging.INFO,
      '%s: %d of %d, %.1f/s, %.0f s left',
      *(10, label, done, len(items), speed, (len(items) - done) / speed),
    )
  return np.concatenate(parts)


def _write(path, names, features):
  """Write features for `metavqa.read_features`, completely or not at all."""
  file = io.BytesIO()
  np.savez(file, names=np.array(names, str), features=features)
  filesystem.replace(path, file.getvalue())
  logging.info('%s: %d features of %d numbers', path, *features.shape)


def main(argv: list[str]) -> None:
  """Encode the tasks and images that the flags name."""
  del argv
  values = flags.FLAGS
  if values.batch < 1:
    raise core.BadInput(f'--batch={values.batch}: expected at least 1')
  cli.set_up()
  encode(values.tasks, values.images, values.model, values.batch)


if __name__ == '__main__':
  paths.define('tasks', None, 'Folder of the tasks; features go there.')
  paths.define('images', None, 'Folder of the image files.')
  paths.define('model', None, 'Folder of a CLIP model.')
  flags.DEFINE_integer('batch', 64, 'Images or strings at a time.')
  flags.mark_flags_as_required(['tasks', 'images', 'model'])
  cli.run(main)
