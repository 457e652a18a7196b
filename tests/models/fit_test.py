"""Training from Python is the training of the command."""

import numpy as np

import hyperudl
from tests.testing import errors

SMALL = {
  'steps': 4,
  'batch': 2,
  'learner__channels': (4,),
  'data__augment': 'none',
  'checkpoint_steps': 4,
}


def images():
  rng = np.random.default_rng(0)
  labels = np.repeat([f'c{k}' for k in range(18)], 6)
  base = rng.integers(0, 256, (18, 1, 10, 10))
  noise = rng.normal(0, 60, (18, 6, 10, 10))
  pixels = np.clip(base + noise, 0, 255).astype(np.uint8)
  return pixels.reshape(-1, 10, 10), labels


def test_a_network_is_trained_on_arrays_and_loaded(tmp_path):
  x, y = images()
  variant = 'protonet:way=3,shot=1,query=2'
  model = hyperudl.fit(x, y, variant, workdir=tmp_path / 'run', **SMALL)
  assert model.step == 4 and model.way == 3
  assert model.inputs.shape == (10, 10, 1) and model.inputs.polarity == 'any'
  task = model.adapt(x[:18], y[:18])
  p = task.predict_proba(x[:2])
  again = hyperudl.load(tmp_path / 'run').adapt(x[:18], y[:18])
  np.testing.assert_array_equal(again.predict_proba(x[:2]), p)
  assert (tmp_path / 'run' / 'DONE').read_text() == '4\n'
  model.save(tmp_path / 'model.npz')
  saved = hyperudl.load(tmp_path / 'model.npz')
  # Of the three validation classes, two are in a task and one is unknown.
  assert set(saved.about['calibration']['unknown']) == {'2'}


def test_faults_are_refused_before_a_run_is_made(tmp_path):
  x, y = images()
  refuse = lambda config='protonet', **more: errors.refusal(
    hyperudl.fit, x, y, config, workdir=tmp_path / 'run', **more
  )
  assert 'choose one of' in refuse('protonett')
  assert 'way' in refuse('protonet:weg=3')
  assert 'config.stepz' in refuse(stepz=3)
  assert 'config.steps' in refuse(steps='many')
  assert 'way' in refuse(episode__way=1)
  assert not (tmp_path / 'run').exists()
