"""Stages of the language learners chain through the command line.

Guards: training/precompute.py.
"""

import numpy as np
import pytest

from tests.testing import runs

SMALL = ('--config.learner.kind=maml', '--config.learner.inner_steps=2')


def train(name, workdir, steps, *options):
  """Train a learner for a few steps, with one checkpoint."""
  return runs.call(
    'train',
    f'--config=configs/{name}.py:set=tiny',
    f'--workdir={workdir}',
    f'--config.steps={steps}',
    f'--config.checkpoint_steps={steps}',
    *options,
  )


def precompute(workdir, *options):
  return runs.call('training.precompute', f'--workdir={workdir}', *options)


@pytest.mark.slow
def test_precomputed_latents_are_trained_on_and_must_be_of_the_same_step(
  tmp_path,
):
  hypernet, hyperldm = tmp_path / 'hypernet', tmp_path / 'hyperldm'
  trained = train('hypernet', hypernet, 5, *SMALL)
  assert trained.code == 0, trained.err
  precomputed = precompute(hypernet, '--copies=2')
  assert precomputed.code == 0, precomputed.err
  with np.load(hypernet / 'latents.npz') as file:
    assert file['latents'].shape == (2, 144, 48)
    assert (file['latents'][0] != file['latents'][1]).any()
  options = [
    f'--config.init_from.hypernet={hypernet}',
    f'--config.data.latents={hypernet}',
    *SMALL,
  ]
  trained = train('hyperldm', hyperldm, 5, *options)
  assert trained.code == 0, trained.err
  # Latents of another step of the network than the one that is taken.
  with np.load(hypernet / 'latents.npz') as file:
    np.savez(hypernet / 'latents.npz', **{**file, 'step': 4})
  refused = train('hyperldm', tmp_path / 'other', 5, *options)
  assert refused.code == 2
  assert 'is of step 4, but' in refused.err and 'takes step 5' in refused.err
  refused = precompute(hyperldm)
  assert refused.code == 2
  assert 'precompute adapts the latents of a hypernet' in refused.err


@pytest.mark.slow
def test_a_network_without_latents_is_refused_in_one_line(tmp_path):
  trained = train('hypernet', tmp_path, 2, '--config.learner.kind=multitask')
  assert trained.code == 0, trained.err
  refused = precompute(tmp_path)
  assert refused.code == 2
  assert "kind='multitask' has no latent for each task" in refused.line
  assert not (tmp_path / 'latents.npz').exists()
