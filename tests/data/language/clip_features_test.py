"""Features by a tiny CLIP of random weights, from files to tasks."""

import json
import pathlib
import subprocess
import sys

from flax import serialization
import numpy as np
from PIL import Image
import pytest

from hyperudl.data.language import clip_encoder
from hyperudl.data.language import clip_features
from hyperudl.data.language import metavqa
from tests.testing import errors

transformers = pytest.importorskip(
  'transformers', reason='the extra clip is not installed'
)
LETTERS = 'abcdefghijklmnopqrstuvwxyz'
QUESTIONS = ('what is red', 'how many are there', 'who is it')
ANSWERS = ('cat', 'dog', 'two')
NAMES = [f'COCO_{i:02d}' for i in range(7)]


@pytest.fixture(scope='module')
def model(tmp_path_factory):
  """The folder of a model that knows letters, not words."""
  folder = tmp_path_factory.mktemp('clip')
  words = [*LETTERS, *(f'{letter}</w>' for letter in LETTERS)]
  words += ['<|startoftext|>', '<|endoftext|>']
  small = {
    'hidden_size': 16,
    'intermediate_size': 32,
    'num_hidden_layers': 1,
    'num_attention_heads': 2,
  }
  ends = {'bos_token_id': len(words) - 2, 'eos_token_id': len(words) - 1}
  text = {'vocab_size': len(words), 'max_position_embeddings': 24, **ends}
  config = transformers.CLIPConfig(
    text_config={**small, **text},
    vision_config={**small, 'image_size': 16, 'patch_size': 8},
    projection_dim=12,
  )
  transformers.FlaxCLIPModel(config, seed=1).save_pretrained(folder)
  numbers = {word: i for i, word in enumerate(words)}
  (folder / 'vocab.json').write_text(json.dumps(numbers))
  (folder / 'merges.txt').write_text('#version: 0.2\n')
  return folder


@pytest.fixture
def tasks(tmp_path):
  """Three tasks with their images, in folders as COCO's."""
  rng = np.random.default_rng(0)
  for number, name in enumerate(NAMES):
    place = tmp_path / 'coco' / ('train2014' if number % 2 else 'val2014')
    place.mkdir(parents=True, exist_ok=True)
    pixels = rng.integers(0, 256, (20 + number, 30, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(place / f'{name}.png')
  folder = tmp_path / 'tasks'
  folder.mkdir()
  for question, split in zip(QUESTIONS, ('train', 'valid', 'test')):
    pairs = [[name, ANSWERS[i % 3]] for i, name in enumerate(NAMES)]
    task = {'support': pairs[:3], 'query': pairs[3:], 'answers': ANSWERS}
    text = json.dumps({question: task})
    (folder / f'meta_{split}.json').write_text(text)
  templates = {question: f'{question} a {{}}' for question in QUESTIONS}
  (folder / 'templates.json').write_text(json.dumps(templates))
  return tmp_path


def run(tasks, model, batch=4):
  clip_features.encode(
    str(tasks / 'tasks'), str(tasks / 'coco'), str(model), batch
  )


@pytest.mark.slow
def test_features_are_those_of_the_model_one_by_one(tasks, model):
  run(tasks, model)
  net = transformers.FlaxCLIPModel.from_pretrained(model)
  tokenizer = transformers.CLIPTokenizer.from_pretrained(model)
  read = lambda kind: metavqa.read_features(
    str(tasks / 'tasks' / f'{kind}_features.npz')
  )
  for name, features in read('image').items():
    (path,) = tasks.glob(f'coco/*/{name}.png')
    image = Image.open(path).resize((16, 16), Image.Resampling.BICUBIC)
    x = (np.asarray(image) / 255 - clip_encoder.MEAN) / clip_encoder.STD
    single = net.get_image_features(x.transpose(2, 0, 1)[None])
    np.testing.assert_allclose(features, single[0], rtol=1e-4, atol=1e-5)
  assert set(read('image')) == set(NAMES)

  def text(string):  # without any padding
    return net.get_text_features(**tokenizer([string], return_tensors='np'))[0]

  questions, answers = read('question'), read('answer')
  for question in QUESTIONS:
    np.testing.assert_allclose(
      questions[question], text(question), rtol=1e-4, atol=1e-5
    )
    singles = [text(f'{question} a {answer}') for answer in ANSWERS]
    np.testing.assert_allclose(answers[question], singles, rtol=1e-4, atol=1e-5)
  different = {tuple(row) for rows in answers.values() for row in rows}
  assert len(different) == 9


@pytest.mark.slow
def test_encoded_tasks_can_be_loaded_and_are_not_encoded_again(tasks, model):
  run(tasks, model)
  loaded = metavqa.load(str(tasks / 'tasks'), 'test')
  assert loaded.images.shape == (7, 12)
  assert not list(tasks.glob('tasks/*.parts'))
  assert 'image_features.npz exists' in errors.refusal(run, tasks, model)


def test_a_stopped_command_resumes_at_the_next_part(tasks, model, monkeypatch):
  monkeypatch.setattr(clip_features, 'PART', 3)
  read, pixels = [], clip_encoder.pixels

  def counted(path, size):
    if len(read) == 4:
      raise KeyboardInterrupt
    read.append(path)
    return pixels(path, size)

  monkeypatch.setattr(clip_encoder, 'pixels', counted)
  with pytest.raises(KeyboardInterrupt):
    run(tasks, model, batch=1)
  assert not list(tasks.glob('tasks/*_features.npz'))
  (part,) = tasks.glob('tasks/*.parts/*')
  broken = part.with_name(part.name.replace('00000000', '00000003'))
  broken.write_bytes(part.read_bytes()[:200])  # as after a power loss
  later = []
  monkeypatch.setattr(
    clip_encoder, 'pixels', lambda p, size: later.append(p) or pixels(p, size)
  )
  run(tasks, model, batch=1)
  assert len(later) == 4 and not {*later} & {*read[:3]} and not part.exists()
  assert len(list(tasks.glob('tasks/*'))) == 7  # no file that is left over
  resumed = np.load(tasks / 'tasks' / 'image_features.npz')['features']
  for path in tasks.glob('tasks/*_features.npz'):
    path.unlink()
  run(tasks, model, batch=1)
  whole = np.load(tasks / 'tasks' / 'image_features.npz')['features']
  np.testing.assert_array_equal(resumed, whole)


def test_parts_of_another_model_are_not_used(model, tmp_path):
  other = tmp_path / 'other'
  other.mkdir()
  for file in model.iterdir():
    (other / file.name).write_bytes(file.read_bytes())
  config = json.loads((other / 'config.json').read_text())
  (other / 'config.json').write_text(json.dumps({**config, 'note': 1}))
  prints = [
    clip_encoder.load(str(folder)).fingerprint for folder in (model, other)
  ]
  means = {'image_mean': [0, 0, 0], 'image_std': [1, 1, 1]}
  (other / 'preprocessor_config.json').write_text(json.dumps(means))
  prints.append(clip_encoder.load(str(other)).fingerprint)
  assert len(set(prints)) == 3


def take_away(model, name):
  file = model / 'flax_model.msgpack'
  weights = serialization.msgpack_restore(file.read_bytes())
  del weights[name]
  file.write_bytes(serialization.msgpack_serialize(weights))


def without(name):
  def remove(tasks, model):
    for path in (*tasks.rglob(name), *model.rglob(name)):
      path.unlink(missing_ok=True)

  return remove


@pytest.mark.parametrize(
  'change,words',
  [
    (without('COCO_03.png'), "images without a file: 1 of 7, first 'COCO_03'"),
    (without('merges.txt'), 'vocab.json with merges.txt'),
    (without('flax_model.msgpack'), 'expected config.json, one of'),
    (
      lambda t, m: take_away(m, 'visual_projection'),
      'has no visual_projection/kernel, and 0 more are missing',
    ),
    (without('templates.json'), 'templates.json: cannot be read'),
    (
      lambda t, m: (m / 'flax_model.msgpack').write_bytes(b'x' * 99),
      'not read as a CLIP model',
    ),
    (
      lambda t, m: (t / 'coco/val2014/COCO_00.png').write_bytes(b'text'),
      'COCO_00.png: not an image file',
    ),
  ],
)
def test_bad_input_is_refused_and_nothing_written(
  tasks, model, tmp_path, change, words
):
  copy = tmp_path / 'model'
  copy.mkdir()
  for file in model.iterdir():
    (copy / file.name).write_bytes(file.read_bytes())
  change(tasks, copy)
  assert words in errors.refusal(run, tasks, copy)
  assert not list(tasks.glob('tasks/*_features.npz'))


def test_the_command_ends_with_one_line(tasks, tmp_path):
  done = subprocess.run(
    [
      *(
        sys.executable,
        '-m',
        'hyperudl.data.language.clip_features',
        f'--tasks={tasks}/tasks',
      ),
      *(f'--images={tasks}/coco', f'--model={tmp_path}/absent'),
    ],
    cwd=pathlib.Path(__file__).parents[3],
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 2
  assert done.stderr.splitlines()[-1].startswith('clip_features: ')
  assert 'is the folder of a CLIP model' in done.stderr
