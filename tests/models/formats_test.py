"""Exported networks predict what the task does, without the library.

Guards: models/onnx_graph.py.
"""

import json
import re
import subprocess
import sys

import jax
import numpy as np
import onnxruntime
import pytest
import safetensors
from safetensors import numpy

from hyperudl.models import bundle
from hyperudl.models import formats
from hyperudl.storage import serialization
from tests.testing import errors
from tests.testing import image_sets
from tests.testing import models
from tests.testing import runs

X = models.pixels(35)[..., None].astype(np.float32) / 255


def adapted(name, **fields):
  model = models.make(name, **fields)
  others = models.pixels(4, seed=9)
  task = model.adapt(*models.support(), unlabelled=others)
  return task.with_temperature(1.5)


@pytest.fixture(scope='module')
def task():
  return adapted('protonet')


@pytest.mark.parametrize(
  'name, fields',
  [
    ('protonet', {}),
    ('protonet', {'channels': (8, 8), 'norm': 'layer'}),  # another convolution
    ('maml', {}),
    pytest.param('hypertransformer', {}, marks=pytest.mark.slow),
    pytest.param('udl', {}, marks=pytest.mark.slow),
  ],
)
def test_onnx_and_stablehlo_give_the_probabilities_of_the_task(
  name, fields, tmp_path
):
  task = adapted(name, **fields)
  task.export(tmp_path / 'cnn.onnx')
  session = onnxruntime.InferenceSession(tmp_path / 'cnn.onnx')
  task.export(tmp_path / 'cnn.stablehlo')
  content = bytearray((tmp_path / 'cnn.stablehlo').read_bytes())
  program = jax.export.deserialize(content)
  expected = task.probabilities(X)
  assert expected.std() > 1e-3
  for count in (1, 35):
    (p,) = session.run(None, {'pixels': X[:count]})
    np.testing.assert_allclose(p, expected[:count], atol=1e-5)
    p = program.call(X[:count])
    np.testing.assert_allclose(p, expected[:count], atol=1e-5)


def test_weights_are_what_predictions_need_and_no_more(task):
  found = formats.weights(task)
  tree = {'adapted': task.adapted, 'params': task.model.params}

  def predict(changed):
    named = {
      name: np.full_like(leaf, np.nan) if changed(name) else leaf
      for name, leaf in serialization.name_leaves(tree).items()
    }
    parts = serialization.fill(tree, named)
    return task.model.programs.predict(
      parts['params'], parts['adapted'], X, 3, task.temperature
    )

  expected = predict(lambda name: False)
  np.testing.assert_array_equal(
    predict(lambda name: name not in found), expected
  )
  for unused in found:
    assert not np.array_equal(predict(lambda name: name == unused), expected)


@pytest.mark.slow
def test_the_network_that_generates_weights_is_left_out():
  task = adapted('hypertransformer')
  names = formats.weights(task)
  assert any(name.startswith('adapted/task') for name in names)
  assert len(names) < len(jax.tree.leaves(task.model.params))


def test_weights_have_names_and_a_description(task, tmp_path):
  expected = formats.weights(task)
  task.export(tmp_path / 'w.npz')
  task.export(tmp_path / 'w.safetensors')
  arrays, meta = bundle.read(tmp_path / 'w.npz', formats.WEIGHTS)
  with safetensors.safe_open(tmp_path / 'w.safetensors', 'numpy') as file:
    about = {k: json.loads(v) for k, v in file.metadata().items()}
  others = numpy.load_file(tmp_path / 'w.safetensors')
  assert set(arrays) == set(others) == set(expected)
  for name, array in expected.items():
    np.testing.assert_array_equal(arrays[name], array)
    np.testing.assert_array_equal(others[name], array)
  for found in (meta, about):
    assert found['classes'] == list(models.CLASSES) and found['way'] == 3
    assert found['temperature'] == 1.5 and found['inputs']['height'] == 8


def test_other_endings_and_missing_packages_are_refused(
  task, tmp_path, monkeypatch
):
  for name in ('cnn', 'cnn.pt'):
    message = errors.refusal(task.export, tmp_path / name)
    assert '.npz, .safetensors, .stablehlo, .onnx' in message
  for ending, package in (
    ('onnx', 'onnx'),
    ('safetensors', 'safetensors'),
    ('stablehlo', 'flatbuffers'),
  ):
    monkeypatch.setitem(sys.modules, package, None)
    message = errors.refusal(task.export, tmp_path / f'cnn.{ending}')
    assert package in message and 'hyperudl[export]' in message
  assert not list(tmp_path.iterdir())


def test_the_example_of_the_guide_needs_neither_hyperudl_nor_jax(
  task, tmp_path
):
  guide = (runs.ROOT / 'docs' / 'guide.md').read_text()
  blocks = re.findall(r'```python\n(.*?)```', guide, re.S)
  (example,) = (code for code in blocks if 'onnxruntime' in code)
  image_sets.draw(tmp_path / 'photo.png', models.pixels(1)[0])
  task.export(tmp_path / 'cnn.onnx')
  names = 'hyperudl', 'jax', 'flax', 'torch', 'onnx'
  code = f'import sys; sys.modules |= dict.fromkeys({names})\n{example}'
  done = subprocess.run(
    [sys.executable, '-I', '-c', code],
    cwd=tmp_path,
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr
  found = dict(line.split() for line in done.stdout.splitlines())
  expected = task.predict_proba([tmp_path / 'photo.png'])[0]
  assert list(found) == list(models.CLASSES)
  values = [float(value) for value in found.values()]
  np.testing.assert_allclose(values, expected, atol=1e-5)
