"""The grid of variants and its tables."""

import itertools
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from configs import mt3
from configs import udl as udl_config
from hyperudl.core import config as config_lib
from hyperudl.learners import udl
from hyperudl.storage import metrics

ROOT = pathlib.Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / 'launch'))

import udl_grid  # noqa: E402


def run(script, *options):
  return subprocess.run(
    [sys.executable, str(ROOT / 'launch' / script), *options],
    cwd=ROOT,
    capture_output=True,
    text=True,
    check=False,
    env={'PATH': '', 'PYTHONPATH': str(ROOT), 'JAX_PLATFORMS': 'cpu'},
  )


@pytest.mark.parametrize('name', udl_grid.VARIANTS)
def test_every_variant_is_legal_and_changes_something(name):
  config = udl_config.get_config('inner').unlock()
  before = config_lib.learner_settings(config)
  for field, value in udl_grid.VARIANTS[name].items():
    assert field in config.learner, field
    config.learner[field] = value
  settings = config_lib.learner_settings(config)
  udl.make(5, **settings)
  assert (settings == before) == (name == 'default')


@pytest.mark.parametrize('name', [*udl_grid.CONTROLS, *udl_grid.JOINT])
def test_every_control_is_a_config(name):
  joint = name in udl_grid.JOINT
  config = udl_config.get_config('joint' if joint else 'base').unlock()
  fields = udl_grid.JOINT[name] if joint else udl_grid.CONTROLS[name]
  for field, value in fields.items():
    config_lib.set_field(config, field, str(value))
  config_lib.validate(config)
  udl.make(5, **config_lib.learner_settings(config))


@pytest.mark.parametrize(
  'arg, dataset, meta_grad',
  [
    (None, 'cifar10', 'full'),
    ('cifar_fs,way=3', 'cifar_fs', 'full'),
    ('joint', 'cifar10', 'none'),
    ('joint,cifar_fs', 'cifar_fs', 'none'),
  ],
)
def test_mt3_and_its_control_differ_in_the_outer_gradient_alone(
  arg, dataset, meta_grad
):
  config = mt3.get_config(arg)
  config_lib.validate(config)
  udl.make(config.episode.way, **config_lib.learner_settings(config))
  assert config.data.dataset == dataset
  assert config.data.shift == 'color_training'
  elsewhere = mt3.get_config('cifar10,shift=fog')
  assert elsewhere.data.shift == 'fog'
  plain = config_lib.learner_settings(mt3.get_config())
  different = {
    name
    for name, value in config_lib.learner_settings(config).items()
    if value != plain[name]
  }
  assert different == ({'meta_grad'} if meta_grad == 'none' else set())


def finished(folder, name, rng, steps=True, seed=0, episodes=30):
  """A run that needs neither training nor evaluation."""
  path = folder / f'{name}-{seed}'
  path.mkdir(parents=True)
  (path / 'DONE').touch()
  start = rng.uniform(0.2, 0.5, size=30)
  arrays = {
    'accuracy_unadapted': start,
    'accuracy_placebo': start - 0.1,
    'accuracy_kmeans_0.5': start + 0.05,
    'accuracy_kmeans_1': start + 0.02,
    'accuracy_kmeans_2': start + 0.01,
    'accuracy': start + 0.2,
    'family': np.repeat([0, 11, 12], 10),
  }
  arrays = {
    k: v[:episodes]
    for k, v in arrays.items()
    if steps or k not in ('accuracy_unadapted', 'accuracy_placebo')
  }
  metrics.write_evaluation(
    str(path), 'heldout-balanced-valid', 8, {'accuracy': 0.5}, arrays
  )


def calls_of(monkeypatch, *options):
  """What the grid would run: (module, options) each."""
  made = []
  monkeypatch.setattr(
    udl_grid, 'call', lambda module, *given: made.append((module, given))
  )
  monkeypatch.setattr(sys, 'argv', ['udl_grid.py', *options])
  udl_grid.main()
  return made


def test_what_is_missing_is_trained_and_evaluated_in_order(
  tmp_path, monkeypatch
):
  rng = np.random.default_rng(0)
  for name in ('vae', 'default'):
    finished(tmp_path, name, rng)
  options = (
    f'--runs={tmp_path}',
    '--dataset=mnist',
    '--proportions=balanced',
    '--variants=default,no_vae,longer_base',
    '--shifts=heldout,none',
  )
  made = calls_of(monkeypatch, *options)
  place = lambda name: f'--workdir={tmp_path}/{name}-0'
  assert [(module, *given[:2]) for module, given in made] == [
    ('train', '--config=configs/udl.py:base,mnist', place('base')),
    ('evaluate', place('default'), '--once'),  # under `none` alone
    ('train', '--config=configs/udl.py:inner,mnist', place('no_vae')),
    ('evaluate', place('no_vae'), '--once'),
    ('evaluate', place('no_vae'), '--once'),
    ('train', '--config=configs/udl.py:base,mnist', place('longer_base')),
    ('evaluate', place('longer_base'), '--once'),
    ('evaluate', place('longer_base'), '--once'),
  ]
  assert '--tag=none-balanced' in made[1][1]
  assert f'--config.init_from.base={tmp_path}/base-0' in made[2][1]
  assert '--config.learner.elbo=none' in made[2][1]
  assert '--config.steps=4800' in made[5][1]
  made = calls_of(monkeypatch, f'--runs={tmp_path / "new"}', '--variants=tent')
  first = ('train', ('--config=configs/vae.py:glyphs',))
  assert (made[0][0], made[0][1][:1]) == first


def test_finished_work_is_not_repeated(tmp_path, monkeypatch):
  rng = np.random.default_rng(0)
  for name in ('vae', 'base', 'default', 'no_vae'):
    finished(tmp_path, name, rng)
  where = [f'--runs={tmp_path}', '--proportions=balanced', '--shifts=heldout']
  assert not calls_of(monkeypatch, *where, '--variants=default,no_vae')


def test_tables_pair_episodes(tmp_path):
  rng = np.random.default_rng(0)
  for name in ('vae', 'base', 'default', 'no_vae'):
    finished(tmp_path, name, rng)
  # A control has no steps; a second seed was evaluated on fewer episodes.
  finished(tmp_path, 'longer_base', rng, steps=False)
  finished(tmp_path, 'no_vae', rng, seed=1, episodes=24)
  where = [f'--runs={tmp_path}', '--proportions=balanced', '--shifts=heldout']
  result = run('udl_tables.py', *where, '--variants=default,no_vae,longer_base')
  assert result.returncode == 0, result.stderr
  lines = result.stdout.splitlines()
  (line,) = [line for line in lines if line.startswith('| default | 1')]
  cells = [cell.strip() for cell in line.split('|')[1:-1]]
  gains = [f'+{v}.0 +- 0.0' for v in (20, 30, 15, 18, 19)]
  assert cells[4:9] == gains and cells[10] == '+0.0 +- 0.0'
  assert '+-' in cells[9]
  (line,) = [line for line in lines if line.startswith('| longer_base | 1')]
  assert line.split('|')[4].strip() == ''
  (line,) = [line for line in lines if line.startswith('| no_vae | 2')]
  assert '+20.0 +- 0.0' in line
  assert '| default | +20.0 +- 0.0 | +20.0 +- 0.0 |' in result.stdout
  one = run('udl_tables.py', *where, '--variants=no_vae', '--seeds=0')
  assert '| no_vae | 1 |' in one.stdout and '| no_vae | 2 |' not in one.stdout


def test_an_unknown_variant_is_refused(tmp_path):
  result = run('udl_grid.py', f'--runs={tmp_path}', '--variants=defalt')
  assert result.returncode == 2
  assert 'unknown variants: defalt' in result.stderr
  assert not list(tmp_path.iterdir())


def page(folder, parts=None):
  """Runs udl_results.sh without Python: what it would call, and its result."""
  (folder / 'launch').mkdir()
  script = ROOT / 'launch' / 'udl_results.sh'
  (folder / 'launch' / script.name).write_text(script.read_text())
  calls = folder / 'calls'
  calls.touch()
  (folder / 'launch' / 'setup.sh').write_text(
    'set -euo pipefail\nmake_environment() { :; }\n'
    f'python() {{ echo "$@" >> {calls}; }}\n'
  )
  (folder / 'launch' / 'mt3_results.sh').touch()
  result = subprocess.run(
    ['bash', folder / 'launch' / script.name],
    cwd=folder,
    env={**os.environ, 'RUN': 'runs', **({'PARTS': parts} if parts else {})},
    capture_output=True,
    text=True,
    check=False,
  )
  return result, [line.split() for line in calls.read_text().splitlines()]


def test_the_page_shows_what_the_grid_makes(tmp_path):
  result, calls = page(tmp_path)
  assert result.returncode == 0, result.stderr
  made = set()
  for script, *options in calls:
    options = [option.lstrip('-').split('=', 1) for option in options]
    measure = [pair.split('=') for name, pair in options if name == 'measure']
    options = dict(options)
    proportions = options.get('proportions', 'dirichlet')
    tags = [udl_grid.protocol(proportions, measure)]
    if 'overrides' in options:
      tags += [f'{proportions}-{o}' for o in options['overrides'].split(',')]
    wanted = itertools.product(
      options['variants'].split(','),
      options.get('shifts', ','.join(udl_grid.SHIFTS)).split(','),
      tags,
    )
    keys = {(options['runs'], options['split'], *key) for key in wanted}
    if script.endswith('udl_grid.py'):
      made |= keys
    assert keys <= made, keys - made
  assert {name for *_, name, _, _ in made} <= {*udl_grid.EVERY}
  titles = [line for line in result.stdout.splitlines() if line[:3] == '## ']
  assert len(titles) == len(set(titles)) > 10


def test_an_unknown_part_of_the_page_is_refused(tmp_path):
  result, calls = page(tmp_path, 'headline setings')
  assert result.returncode == 2 and not result.stdout and not calls
  assert 'no part setings; there are: headline' in result.stderr
