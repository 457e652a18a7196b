"""Stages of guidance by language through the command line."""

import pathlib
import subprocess
import sys

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).parents[2]


def call(module, *options, code=0):
  result = subprocess.run(
    [sys.executable, '-m', f'hyperudl.{module}', *options],
    cwd=ROOT,
    capture_output=True,
    text=True,
    check=False,
  )
  assert result.returncode == code, result.stderr
  return result.stderr


def train(name, folder, steps, *options, code=0):
  return call(
    'train',
    f'--config=configs/{name}.py:set=tiny',
    f'--workdir={folder}',
    f'--config.steps={steps}',
    f'--config.checkpoint_steps={steps}',
    *options,
    code=code,
  )


@pytest.mark.slow
def test_latents_are_adapted_once_and_learned_from(tmp_path):
  run = lambda name: tmp_path / name
  small = ['--config.learner.kind=maml', '--config.learner.inner_steps=2']
  train('hypernet', run('hypernet'), 5, *small)
  call('precompute', f'--workdir={run("hypernet")}', '--copies=2')
  with np.load(run('hypernet') / 'latents.npz') as file:
    assert file['latents'].shape == (2, 144, 48)
    assert (file['latents'][0] != file['latents'][1]).any()
  options = [
    f'--config.init_from.hypernet={run("hypernet")}',
    f'--config.data.latents={run("hypernet")}',
    *small,
  ]
  train('hyperldm', run('hyperldm'), 5, *options)
  # Latents of another step of the network than the one that is grafted.
  with np.load(run('hypernet') / 'latents.npz') as file:
    np.savez(run('hypernet') / 'latents.npz', **{**file, 'step': 4})
  told = train('hyperldm', run('other'), 5, *options, code=2)
  assert 'is of step 4, but' in told and 'takes step 5' in told
  told = call('precompute', f'--workdir={run("hyperldm")}', code=2)
  assert 'precompute adapts the latents of a hypernet' in told


@pytest.mark.slow
def test_a_network_without_latents_is_refused_in_one_line(tmp_path):
  train('hypernet', tmp_path, 2, '--config.learner.kind=multitask')
  told = call('precompute', f'--workdir={tmp_path}', code=2)
  assert "kind='multitask' has no latent for each task" in told
  assert told.count('\n') == 1 and not (tmp_path / 'latents.npz').exists()
