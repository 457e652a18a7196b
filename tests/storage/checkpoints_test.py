"""Checkpoints: round trips, refusals, full disks, other device counts."""

import os
import threading

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from hyperudl import core
from hyperudl.core import config as config_lib
from hyperudl.storage import checkpoints
from hyperudl.storage import selection
from tests.testing import checkpoints as helpers

POLICY = checkpoints.Policy()


def test_every_leaf_comes_back_bit_for_bit(tmp_path):
  helpers.write(tmp_path, 1, 2)
  helpers.assert_step(tmp_path, 2)


def test_a_relative_workdir_is_saved_too(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  os.mkdir('run')
  manager = checkpoints.open_manager('run', POLICY)
  checkpoints.save(manager, helpers.make_state(1), helpers.CONFIG)
  checkpoints.close(manager)
  helpers.assert_step(tmp_path / 'run', 1)


def test_without_a_target_dictionaries_of_strings_come_back(tmp_path):
  helpers.write(tmp_path, 1)
  state, _, _ = selection.restore_latest(tmp_path)
  params = helpers.make_state(1).params
  np.testing.assert_array_equal(state['params']['layers']['0'], [1, 1])
  assert state['params']['layers']['1'].shape == (0, 3)
  assert state['opt_state']['0']['count'] == 0
  np.testing.assert_array_equal(
    state['params']['block0']['kernel'], params['block0']['kernel']
  )


def test_a_target_of_params_alone_leaves_the_optimizer_out(tmp_path):
  helpers.write(tmp_path, 1)
  params = helpers.make_state(1).params
  shapes = jax.eval_shape(lambda: params)
  state, _, _ = selection.restore_latest(tmp_path, {'params': shapes})
  helpers.assert_same(state, {'params': params})


def test_the_policy_of_a_config_says_when_to_save():
  config = config_lib.base()
  config.update(steps=25, checkpoint_steps=10)
  config.eval.update(keep_best=4, select_after=20)
  policy = checkpoints.Policy.from_config(config)
  assert [s for s in range(1, 26) if policy.is_due(s)] == [10, 20, 25]
  assert (policy.keep_latest, policy.keep_best) == (3, 4)
  assert policy.select_after == 20


def test_the_latest_steps_stay(tmp_path):
  helpers.write(tmp_path, 1, 2, 3, 4, keep=2)
  assert checkpoints.steps(tmp_path) == [3, 4]


def test_a_donated_state_is_saved_as_it_was(tmp_path):
  step = jax.jit(lambda s: jax.tree.map(lambda x: x + 1, s), donate_argnums=0)
  state, manager = (
    helpers.make_state(1),
    checkpoints.open_manager(tmp_path, POLICY),
  )
  checkpoints.save(manager, state, helpers.CONFIG)
  for _ in range(3):
    state = step(state)
  checkpoints.close(manager)
  helpers.assert_step(tmp_path, 1)


def test_saving_a_step_twice_is_harmless_and_an_older_one_refused(tmp_path):
  manager = checkpoints.open_manager(tmp_path, POLICY)
  assert checkpoints.save(manager, helpers.make_state(2), helpers.CONFIG)
  assert not checkpoints.save(manager, helpers.make_state(2), helpers.CONFIG)
  with pytest.raises(core.Error, match='step 1 is older'):
    checkpoints.save(manager, helpers.make_state(1), helpers.CONFIG)
  checkpoints.close(manager)
  helpers.assert_step(tmp_path, 2)


@pytest.mark.parametrize('value', [np.nan, np.inf])
def test_parameters_that_are_not_finite_are_never_saved(tmp_path, value):
  manager = checkpoints.open_manager(tmp_path, POLICY)
  checkpoints.save(manager, helpers.make_state(1), helpers.CONFIG)
  bad = helpers.make_state(2)
  bad.params['half'] = bad.params['half'].at[1].set(value)
  with pytest.raises(core.NonFinite, match='params/half is not finite at step'):
    checkpoints.save(manager, bad, helpers.CONFIG)
  checkpoints.close(manager)
  assert checkpoints.steps(tmp_path) == [1]


def test_without_a_checkpoint_nothing_is_restored(tmp_path):
  assert helpers.restore(tmp_path) is None
  assert helpers.restore(tmp_path / 'missing') is None


@pytest.mark.parametrize(
  'limit', [20, 20_000, 'late 20', 'late 20_000', 'gone']
)
def test_a_full_disk_ends_with_one_line_and_the_last_step_intact(
  tmp_path, limit
):
  """Files may not grow before orbax writes, or while it does; or no disk."""
  helpers.write(tmp_path, 1)
  result = helpers.run(
    """
    import resource
    from hyperudl.storage import filesystem
    *late, limit = sys.argv[2].split()
    manager = checkpoints.open_manager(sys.argv[1], checkpoints.Policy())
    if late or limit == 'gone':
      filesystem.check_space = lambda directory, size: None
    if limit == 'gone':
      os.rename(manager.directory, sys.argv[1] + '/moved')
      open(manager.directory, 'w').close()
    else:
      resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), -1))
    try:
      checkpoints.save(manager, make_state(2, width=2000), CONFIG)
      checkpoints.finish(manager)
    except core.Error as error:
      print(error, file=sys.stderr)
      sys.exit(error.exit_code)
    finally:
      checkpoints.close(manager)
    """,
    tmp_path,
    limit,
  )
  assert result.returncode == 5, result
  lines = result.stderr.splitlines()
  assert len(lines) == 1, lines
  assert str(tmp_path / 'checkpoints') in lines[0]
  reason = 'Not a directory' if limit == 'gone' else 'File too large'
  assert reason in lines[0] and 'bytes free' in lines[0]
  if limit == 'gone':
    os.replace(tmp_path / 'checkpoints', tmp_path / 'file')
    os.rename(tmp_path / 'moved', tmp_path / 'checkpoints')
  helpers.assert_step(tmp_path, 1)
  helpers.write(tmp_path, 2)
  helpers.assert_step(tmp_path, 2)


def test_a_disk_that_fills_during_a_save_is_reported_by_the_next_wait(
  tmp_path, monkeypatch
):
  manager = checkpoints.open_manager(tmp_path, POLICY)
  checkpoints.save(manager, helpers.make_state(1), helpers.CONFIG)
  checkpoints.finish(manager)
  full = ValueError("RESOURCE_EXHAUSTED: d/ab: os_error_code='28' and a page")
  monkeypatch.setattr(
    ocp.CheckpointManager,
    'wait_until_finished',
    lambda self: (_ for _ in ()).throw(full),
  )
  with pytest.raises(core.Unwritable, match='No space left on device'):
    checkpoints.save(manager, helpers.make_state(2), helpers.CONFIG)
  monkeypatch.undo()
  checkpoints.close(manager)
  assert checkpoints.steps(tmp_path) == [1]


def test_a_workdir_that_is_a_file_cannot_be_written(tmp_path):
  (tmp_path / 'run').write_text('')
  with pytest.raises(core.Unwritable, match=r'run.*bytes free'):
    checkpoints.open_manager(tmp_path / 'run', POLICY)


def test_a_forbidden_workdir_cannot_be_written(tmp_path):
  manager = checkpoints.open_manager(tmp_path, POLICY)
  os.chmod(manager.directory, 0o555)
  os.chmod(tmp_path, 0o555)
  root = os.geteuid() == 0  # root may write everywhere
  if root:
    os.seteuid(65534)
  try:
    with pytest.raises(core.Unwritable, match='Permission denied'):
      checkpoints.save(manager, helpers.make_state(1), helpers.CONFIG)
    with pytest.raises(core.Unwritable, match='Permission denied'):
      checkpoints.open_manager(tmp_path / 'other', POLICY)
  finally:
    if root:
      os.seteuid(0)
    os.chmod(manager.directory, 0o755)
    os.chmod(tmp_path, 0o755)
  checkpoints.close(manager)


def test_a_state_of_four_devices_is_restored_on_one(tmp_path):
  result = helpers.run(
    """
    from jax.sharding import Mesh, NamedSharding, PartitionSpec
    devices = jax.devices()
    assert len(devices) == 4
    mesh = Mesh(np.array(devices), 'd')
    state, whole = make_state(3), NamedSharding(mesh, PartitionSpec())
    params = jax.device_put(state.params, whole)
    split = NamedSharding(mesh, PartitionSpec(None, 'd'))
    kernel = jax.device_put(params['block0']['kernel'], split)
    assert len(kernel.addressable_shards) == 4
    params['block0']['kernel'] = kernel
    manager = checkpoints.open_manager(sys.argv[1], checkpoints.Policy())
    checkpoints.save(manager, state._replace(params=params), CONFIG)
    checkpoints.close(manager)
    """,
    tmp_path,
    # Added to the flags here, so that both processes round alike.
    env={
      'XLA_FLAGS': os.environ.get('XLA_FLAGS', '')
      + ' --xla_force_host_platform_device_count=4'
    },
  )
  assert result.returncode == 0, result.stderr
  assert len(jax.devices()) == 1
  helpers.assert_step(tmp_path, 3)


def test_a_reader_survives_a_trainer_that_keeps_one(tmp_path):
  """Steps vanish between the listing and the reading."""
  helpers.write(tmp_path, 0)
  ended = threading.Event()

  def train():
    manager = checkpoints.open_manager(
      tmp_path, checkpoints.Policy(keep_latest=1)
    )
    for step in range(1, 15):
      checkpoints.save(manager, helpers.make_state(step), helpers.CONFIG)
    checkpoints.close(manager)
    ended.set()

  thread = threading.Thread(target=train)
  thread.start()
  reads = 0
  while not ended.is_set():
    state, step, _ = helpers.restore(tmp_path)
    helpers.assert_same(state, helpers.make_state(step))
    reads += 1
  thread.join()
  assert reads > 0
  helpers.assert_step(tmp_path, 14)
