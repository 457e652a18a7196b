"""Features of a run become a data set, which other learners train on."""

import importlib
import json

import numpy as np
import pytest

from hyperudl import core
from hyperudl.core import config as config_lib
from hyperudl.data import datasets
from hyperudl.evaluation import evaluator
from hyperudl.evaluation import features
from hyperudl.evaluation import runner
from hyperudl.learners import protonet
from hyperudl.storage import selection
from hyperudl.training import setup
from hyperudl.training import trainer
from tests.testing import runs
from tests.testing.errors import refusal


def tiny_config(name, dataset, folder, **learner):
  module = importlib.import_module(f'configs.{name}')
  config = module.get_config(f'{dataset},way=3,query=2,batch=2').unlock()
  config.data.dir, config.steps = str(folder), 2
  config.eval.episodes = 10
  config.learner.update(learner)
  return config.lock()


@pytest.fixture(scope='module')
def encoder(tmp_path_factory):
  """The workdir of a tiny protonet without batch statistics."""
  workdir = tmp_path_factory.mktemp('encoder')
  net = {'channels': (4, 4), 'norm': 'group'}
  trainer.train(
    tiny_config('protonet', 'tiny', runs.data_dir(), **net), workdir
  )
  return workdir


@pytest.fixture(scope='module')
def folder(encoder, tmp_path_factory):
  """A folder with the features of the encoder, `coded.npz`."""
  path = tmp_path_factory.mktemp('data')
  config = setup.read_config(encoder)
  report = features.write(encoder, config, f'{path}/coded.npz', 'latest')
  assert '24 classes, 288 features (12 to 12 per class), 36' in report
  assert 'train: 12 classes' in report and 'test: 6 classes' in report
  return path


def test_each_row_is_the_embedding_of_its_image(encoder, folder):
  config = setup.read_config(encoder)
  settings = config_lib.learner_settings(config)
  params = selection.restore_step(encoder, 'latest').state['params']
  for split in ('train', 'valid', 'test'):
    images = datasets.load('tiny', split, str(runs.data_dir()))
    rows = datasets.load('coded', split, str(folder))
    assert rows.class_names == images.class_names
    numbers = [0, 7, 40, 71]
    x = np.float32(images.images[numbers]) / 255
    expected = protonet.embed(protonet.Config(**settings), params, x)
    np.testing.assert_allclose(rows.images[numbers], expected, atol=1e-4)


@pytest.mark.parametrize(
  'name, settings',
  [('baseline', {}), ('protonet', {}), ('maml', {'inner_steps': 2})],
)
def test_a_learner_trains_and_is_evaluated_on_the_file(
  folder, tmp_path, name, settings
):
  trainer.train(tiny_config(name, 'coded', folder, **settings), tmp_path)
  record = json.loads((tmp_path / 'data.json').read_text())
  assert record['inputs'] == {'features': 36}
  config = setup.read_config(tmp_path)
  row = runner.evaluate_once(tmp_path, runner.Request(config))
  assert row['episodes'] == 10 and 0 < row['accuracy'] <= 1
  assert row['transductive'] is False and 'accuracy_pixels' in row
  if name == 'protonet':
    assert evaluator.is_transductive(config)  # on images it would be


def test_learners_and_runs_of_images_refuse_the_file(encoder, folder, tmp_path):
  config = tiny_config('hypertransformer', 'coded', folder)
  message = refusal(trainer.train, config, tmp_path)
  assert "learner 'hypertransformer' needs images" in message
  assert not list(tmp_path.iterdir())
  config = setup.read_config(encoder).unlock()
  config.data.dataset, config.data.dir = 'coded', str(folder)
  message = refusal(evaluator.Evaluator, config, 'test', 1)
  assert 'coded has rows of 36 features, and the run was trained on' in message


def test_what_cannot_be_written_is_refused(encoder, tmp_path):
  config = setup.read_config(encoder)
  with pytest.raises(core.BadInput, match='ends in'):
    features.write(encoder, config, f'{tmp_path}/a.npy', 'latest')
  for change, words in (
    ({'learner.norm': 'batch'}, 'normalises by the batch'),
    ({'data.split_by': 'image'}, 'each class in all splits'),
    ({'learner.name': 'maml'}, "is a run of 'maml'"),
  ):
    changed = config.copy_and_resolve_references()
    changed.update_from_flattened_dict(change)
    call = lambda: features.write(encoder, changed, f'{tmp_path}/a.npz', 'best')
    assert words in refusal(call)
  assert not list(tmp_path.iterdir())
