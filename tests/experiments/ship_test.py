"""Models that come with the library: their files, their cards, their pages."""

import fnmatch
import json

import pytest

from experiments import pages
from experiments import ship
from hyperudl.models import loading
from hyperudl.models import model as model_lib
from tests.testing import errors
from tests.testing import models

RESULT = {'accuracy': 0.91237, 'accuracy_ci95': 0.01, 'episodes': 600, 'nll': 1}


@pytest.fixture
def run(tmp_path, monkeypatch):
  """A finished run of `glyphs`, whose network is a tiny one."""
  workdir = tmp_path / 'models/glyphs/protonet-0'
  (workdir / 'eval').mkdir(parents=True)
  (workdir / 'DONE').touch()
  lines = [json.dumps({'accuracy': 0.1}), json.dumps(RESULT)]
  for name in ('mnist-5way-1shot-all', 'valid'):
    path = workdir / f'eval/{name}.jsonl'
    path.write_text('\n'.join(lines) + '\n')
  monkeypatch.setattr(ship.models, 'load', lambda path: models.make())
  monkeypatch.setattr(model_lib.Model, 'calibrate', lambda self: self)
  return workdir


def test_the_file_has_the_card_and_the_last_results(run, tmp_path):
  about = ship.ship('glyphs', tmp_path, tmp_path / 'glyphs.npz')
  loaded = loading.load(tmp_path / 'glyphs.npz')
  assert loaded.about == about
  assert about['licence'] and about['card'] and about['data'] == 'glyphs'
  expected = {'accuracy': 0.9124, 'accuracy_ci95': 0.01, 'episodes': 600}
  assert about['metrics'] == {'mnist-5way-1shot-all': expected}


def test_nothing_is_written_before_training_and_tests_have_ended(run, tmp_path):
  out = tmp_path / 'glyphs.npz'
  (run / 'eval/mnist-5way-1shot-all.jsonl').unlink()
  message = errors.refusal(ship.ship, 'glyphs', tmp_path, out)
  assert 'no results of the page' in message
  (run / 'DONE').unlink()
  message = errors.refusal(ship.ship, 'glyphs', tmp_path, out)
  assert '--rows=protonet' in message and not out.exists()


def test_every_model_has_a_row_that_is_tested_on_what_it_never_saw():
  for shipped in ship.SHIPPED.values():
    row = pages.PAGES[shipped.page].rows[shipped.row]
    tested = fnmatch.filter(row.evaluations, '*way-*shot-*')
    assert len(tested) == len(row.evaluations) > 1
