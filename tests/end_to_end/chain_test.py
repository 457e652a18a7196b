"""Stages of `udl` chain: each is a run that starts from the run before."""

import jax
import numpy as np
import pytest

from hyperudl.storage import selection
from tests.testing import runs


def flags(config, workdir, *more):
  """Return the flags of a small stage that evaluates 6 episodes."""
  return [
    f'--config=configs/{config}',
    f'--workdir={workdir}',
    f'--config.data.dir={runs.data_dir()}',
    '--config.data.augment=none',
    '--config.eval.episodes=6',
    '--config.eval.batch=3',
    '--config.log_steps=2',
    *more,
  ]


def udl(phase, workdir, *more):
  """Return the flags of a small stage of `udl`."""
  sizes = {
    'channels': '(4,4)',
    'width': 8,
    'layers': 1,
    'heads': 2,
    'trunk': '(4,)',
    'inner_steps': 1,
    'vae_latent': 4,
    'vae_hidden': '(16,)',
  }
  return flags(
    f'udl.py:{phase},tiny,way=2,query=2,unlabelled=2,batch=2,steps=4',
    workdir,
    '--config.data.shift=noise',
    '--config.episode.proportions=balanced',
    *[f'--config.learner.{name}={value}' for name, value in sizes.items()],
    *more,
  )


@pytest.fixture(scope='module')
def chain(tmp_path_factory):
  """Train the runs `vae`, `base` and `inner`, and return their folder."""
  folder = tmp_path_factory.mktemp('chain')
  stages = [
    flags(
      'vae.py:tiny,way=4,shot=2,query=2,steps=6',
      folder / 'vae',
      '--config.learner.latent=4',
      '--config.learner.hidden=(16,)',
    ),
    udl('base', folder / 'base', f'--config.init_from.vae={folder}/vae'),
    udl('inner', folder / 'inner', f'--config.init_from.base={folder}/base'),
  ]
  for stage in stages:
    done = runs.call('train', *stage)
    assert done.code == 0, done.err
    assert 'random initial weights' not in done.err.replace('\n', ' ')
  return folder


def params(workdir):
  return selection.restore_step(str(workdir), 'latest')[0]['params']


def assert_equal(tree, expected):
  assert jax.tree.structure(tree) == jax.tree.structure(expected)
  jax.tree.map(np.testing.assert_array_equal, tree, expected)


@pytest.mark.slow
def test_frozen_networks_equal_those_of_the_stage_before(chain):
  vae, base, inner = (params(chain / n) for n in ('vae', 'base', 'inner'))
  assert_equal(base['frozen']['vae'], vae)
  assert_equal(inner['frozen']['vae'], vae)
  trained = {name: leaf for name, leaf in base.items() if name != 'frozen'}
  assert_equal(inner['frozen']['base'], trained)
  assert set(inner) == {'frozen', 'inner'}
  # A resumed run needs no upstream any more.
  more = f'--config.init_from.base={chain}/base'
  (chain / 'inner' / 'DONE').unlink()
  (chain / 'base').rename(chain / 'moved')
  try:
    done = runs.call('train', *udl('inner', chain / 'inner', more))
  finally:
    (chain / 'moved').rename(chain / 'base')
  assert done.code == 0, done.err
  assert (chain / 'inner' / 'DONE').exists()


@pytest.mark.slow
def test_an_upstream_that_does_not_fit_is_refused(chain):
  wrong = {
    'nowhere': ('inner', ['base', chain / 'nowhere'], 'no checkpoint there'),
    'vae': ('inner', ['base', chain / 'vae'], 'init_from.base='),
    'none': ('joint', ['base', chain / 'base'], 'has no network of that name'),
    'width': ('base', ['vae', chain / 'base'], 'init_from.vae='),
  }
  commands = [
    udl(phase, chain / f'bad-{name}', f'--config.init_from.{key}={path}')
    for name, (phase, (key, path), _) in wrong.items()
  ]
  results = runs.call_many('train', commands)
  for (name, (_, _, words)), result in zip(wrong.items(), results):
    assert (result.code, name) == (2, name), result.err
    assert words in result.line
    assert not (chain / f'bad-{name}').exists()


@pytest.mark.slow
def test_controls_are_evaluated_under_their_tags(chain):
  changes = {
    'noise': '--config.episode.inner_data=noise',
    'none': '--config.episode.inner_data=none',
    'emit-mean': '--config.episode.emit_from=mean',
    'own': '--config.episode.emit_from=own',
  }
  commands = [
    [f'--workdir={chain}/inner', '--once', f'--tag={tag}', change]
    for tag, change in changes.items()
  ]
  rows = {}
  for tag, result in zip(changes, runs.call_many('evaluate', commands)):
    assert result.code == 0, result.err
    (rows[tag],) = runs.results(chain / 'inner', f'{tag}-test')
    for name in ('accuracy', 'accuracy_unadapted', 'gain_step', 'gain_data'):
      assert {name, f'{name}_ci95'} <= set(rows[tag])
  # Without images there is no step; the generated weights do not read them.
  assert rows['none']['gain_step'] == 0
  for tag in ('noise', 'none'):
    same = rows[tag]['accuracy_unadapted'], rows[tag]['nll_unadapted']
    own = rows['own']['accuracy_unadapted'], rows['own']['nll_unadapted']
    assert same == pytest.approx(own, rel=1e-5)
  assert rows['emit-mean']['nll_unadapted'] != rows['own']['nll_unadapted']


@pytest.mark.slow
def test_the_shift_of_an_episode_is_drawn(chain):
  flags = [f'--workdir={chain}/inner', '--once']
  assert runs.call('evaluate', *flags).code == 0
  out = chain / 'shift.png'
  flags = [f'--workdir={chain}/inner', '--kind=adaptation', f'--out={out}']
  done = runs.call('plots', *flags, '--shift=shear')
  assert done.code == 0, done.err
  assert out.stat().st_size > 20_000
