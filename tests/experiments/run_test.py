"""The command of results pages trains what is missing and writes the page."""

import pathlib

import numpy as np
import pytest

from experiments import pages
from experiments import run
from experiments import trainings
from tests.testing import results


def run_page(monkeypatch, *flags):
  """The calls of the mains by `experiments.run`; they train nothing here.

  In place of its file, the call of an evaluation has the lines of overrides.
  """
  calls = []

  def call(*command):
    *others, last = command
    name, _, path = last.partition('=')
    if name == '--overrides':
      last = pathlib.Path(path).read_text().splitlines()
    calls.append((*others, last))

  monkeypatch.setattr(trainings, 'call', call)
  run.run(run.parse_arguments(list(flags)))
  return [call[0] for call in calls], calls


def test_a_retired_page_can_be_printed_alone(capsys):
  with pytest.raises(SystemExit) as stopped:
    run.parse_arguments(['film'])
  assert stopped.value.code == 2
  assert 'retired; see commit 6e0fc91 (v0-full)' in capsys.readouterr().err


def test_a_page_holds_what_there_is(tmp_path):
  options = results.arguments(tmp_path, 'gradient')
  for seed, accuracy in ((0, 0.5), (1, 0.7)):
    values = {'accuracy': np.full(9, accuracy)}
    results.finish(options, f'maml-{seed}', values)
  (tmp_path / 'gradient' / 'omniglot' / 'maml-2').mkdir()  # interrupted
  (line,) = results.lines_of(options, 'maml')
  # 12.7 s / sqrt(2) with s = .1 sqrt(2); 60 s and 120 / 2 s of training.
  assert line == ['maml', '60.0 +- 127.1 (50.0, 70.0)', 'yes', '9', '180', '2']


def test_results_stay_when_the_runs_are_gone(tmp_path, monkeypatch):
  """And with --recorded they are not trained again."""
  options = results.arguments(tmp_path, 'semi')
  values = {'accuracy': np.linspace(0, 1, 9)}
  folder = results.finish(options, 'base-1layer-0', values)
  out = tmp_path / 'tables' / 'semi.md'
  flags = ['semi', f'--out={out}', f'--runs={tmp_path}', '--rows=base-1layer']
  assert not run_page(monkeypatch, *flags)[0]
  page = out.read_text()
  assert '| base-1layer | 50.0 +- ' in page
  folder.rename(tmp_path / 'elsewhere')
  assert not run_page(monkeypatch, *flags, '--recorded')[0]
  assert out.read_text() == page
  assert run_page(monkeypatch, *flags)[0] == ['train', 'evaluate']
  # What other rows start from is trained for them all the same.
  flags[-1] = '--rows=unlabelled-4-1layer'
  started, calls = run_page(monkeypatch, *flags, '--recorded')
  assert started == ['train', 'train', 'evaluate']
  base = f'{tmp_path}/semi/omniglot/base-1layer-0'
  assert f'--workdir={base}' in calls[0]
  assert f'--config.init_from.writer={base}' in calls[1]


def test_what_is_missing_is_trained_and_evaluated_in_order(
  tmp_path, monkeypatch
):
  options = results.arguments(tmp_path, 'udl-few-shot', '--dataset=mnist')
  results.finish(options, 'vae-0', {})
  values = {'accuracy': np.ones(9)}
  results.finish(options, 'default-0', values, 'none-dirichlet-test')
  flags = ['udl-few-shot', '--dataset=mnist', f'--runs={tmp_path}']
  _, calls = run_page(monkeypatch, *flags)
  place = lambda row: f'{tmp_path}/udl-few-shot/mnist/{row}-0'
  assert [call[:3] for call in calls] == [
    (
      'train',
      '--config=configs/udl.py:base,mnist',
      f'--workdir={place("base")}',
    ),
    ('evaluate', f'--workdir={place("default")}', '--once'),
  ]
  assert f'--config.init_from.vae={place("vae")}' in calls[0]
  assert '--config.episode.unlabelled=0' in calls[0]
  (line,) = calls[1][-1]  # the other result exists
  assert line.endswith('--tag=shear-dirichlet')
  assert line.startswith('--data_dir=data_numpy_dir --split=test ')


def test_a_page_says_which_rows_its_command_leaves_out(tmp_path):
  out = tmp_path / 'page.md'
  options = results.arguments(tmp_path, 'metric', f'--out={out}')
  values = {'accuracy': np.linspace(0, 1, 9)}
  results.finish(options, 'protonet-5way-0', values, '1shot-test')
  command = []
  for rows in ('', 'protonet-20way,protonet-dot-fixed'):
    flags = [f'--out={out}', f'--without={rows}']
    run.write(results.arguments(tmp_path, 'metric', *flags))
    command.append(out.read_text().split('\n\n')[1])
  assert command[1] == (
    f'{command[0]} --without=protonet-20way,protonet-dot-fixed'
  )


def test_rows_are_chosen_and_left_out(tmp_path, capsys):
  rows = lambda *flags: results.arguments(tmp_path, 'metric', *flags).rows
  known = list(pages.PAGES['metric'].rows)
  assert rows() == rows('--without=') == known
  assert rows('--without=protonet-20way') == known[1:]
  chosen = '--rows=protonet-dot-fixed,protonet-5way'
  assert rows(chosen) == ['protonet-dot-fixed', 'protonet-5way']
  assert rows(chosen, '--without=protonet-5way') == ['protonet-dot-fixed']
  for flag, words in (
    ('--without=protonet-6way', 'no rows protonet-6way in metric; there are'),
    ('--out=page.txt', 'expected a name that ends in .md'),
  ):
    with pytest.raises(SystemExit) as error:
      rows(flag)
    assert error.value.code == 2 and words in capsys.readouterr().err


def test_paths_are_expanded_or_refused(capsys):
  arguments = run.parse_arguments(['film', '--print', '--runs=~/runs'])
  assert arguments.runs == pathlib.Path.home() / 'runs'
  with pytest.raises(SystemExit):
    run.parse_arguments(['film', '--print', '--out=gs://bucket/film.md'])
  assert 'only files and folders of this machine' in capsys.readouterr().err
