"""Damaged, stray and foreign checkpoints."""

import shutil

import jax.numpy as jnp
import orbax.checkpoint as ocp
import pytest

from hyperudl import core
from hyperudl.storage import checkpoints
from hyperudl.storage import selection
from tests.testing import checkpoints as helpers
from tests.testing import errors

POLICY = checkpoints.Policy()


@pytest.mark.parametrize('how', ['flip', 'half', 'empty', 'delete'])
def test_no_damage_to_any_file_gives_wrong_numbers(tmp_path, how, warnings):
  """Each file in turn: the step is read right, or reported and skipped."""
  step = helpers.write(tmp_path, 1, 2) / '2'
  shutil.copytree(step, tmp_path / 'good')
  unreadable = []
  for path in helpers.files(step):
    helpers.damage(path, how)
    warnings.clear()
    _, number, _ = helpers.restore(tmp_path)
    helpers.assert_step(tmp_path, number)
    assert number == 2 or len(warnings) == 2  # one line per restore
    unreadable += [path.name] if number == 1 else []
    shutil.rmtree(step)
    shutil.copytree(tmp_path / 'good', step)
  assert {'metadata', 'manifest.ocdbt'} <= set(unreadable)
  assert len(unreadable) >= 4  # and the files of data, whose names are random
  assert all(str(step) in line and '\n' not in line for line in warnings)


def test_changed_data_fail_their_checksum(tmp_path, warnings):
  """Orbax reads changed numbers without an error."""
  step = helpers.write(tmp_path, 1, 2) / '2'
  meta = checkpoints.read_meta(str(step))
  with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as checkpointer:
    args = ocp.args.Composite(state=ocp.args.StandardRestore())
    data = checkpointer.restore(step, args=args)['state']
    data['bytes'][meta['leaves']['params/block0/kernel']['offset'] + 7] ^= 1
    args = ocp.args.Composite(
      state=ocp.args.StandardSave(data), meta=ocp.args.JsonSave(meta)
    )
    checkpointer.save(step, args=args, force=True)
  helpers.assert_step(tmp_path, 1)
  assert 'the checksum of params/block0/kernel is wrong' in warnings[0]


def test_an_edited_config_fails_its_checksum(tmp_path, warnings):
  path = helpers.write(tmp_path, 1, 2) / '2' / 'meta' / 'metadata'
  path.write_text(path.read_text().replace('"width": 4', '"width": 5'))
  helpers.assert_step(tmp_path, 1)
  assert 'checksum of its meta data' in warnings[0]


def test_a_renamed_step_directory_is_unreadable(tmp_path, warnings):
  directory = helpers.write(tmp_path, 1, 2)
  (directory / '2').rename(directory / '9')
  helpers.assert_step(tmp_path, 1)
  assert 'it holds step 2' in warnings[0]


def test_unreadable_checkpoints_alone_raise_and_stay_on_disk(
  tmp_path, warnings
):
  directory = helpers.write(tmp_path, 1, 2)
  for step in '12':
    helpers.damage(directory / step / 'state' / 'manifest.ocdbt', 'half')
  before = {p: p.read_bytes() for p in helpers.files(directory)}
  message = errors.refusal(helpers.restore, tmp_path, error=core.Unreadable)
  assert str(directory) in message
  assert core.Unreadable.exit_code == 3
  assert len(warnings) == 2
  assert {p: p.read_bytes() for p in helpers.files(directory)} == before


def test_stray_files_are_ignored_and_block_no_save(tmp_path):
  directory = helpers.write(tmp_path, 1, 2)
  (directory / '900').mkdir()  # orbax would call it the latest step
  (directory / '3.orbax-checkpoint-tmp' / 'state').mkdir(parents=True)
  (directory / 'notastep').mkdir()
  (directory / '0009').mkdir()
  (directory / '7').write_text('a file')
  assert checkpoints.steps(tmp_path) == [1, 2]
  helpers.assert_step(tmp_path, 2)
  manager = checkpoints.open_manager(tmp_path, POLICY, resumed_step=2)
  assert checkpoints.save(manager, helpers.make_state(3), helpers.CONFIG)
  checkpoints.close(manager)
  helpers.assert_step(tmp_path, 3)
  assert (directory / '7').read_text() == 'a file'


def test_a_step_deleted_while_it_is_read_is_skipped_silently(
  tmp_path, warnings, monkeypatch
):
  directory = helpers.write(tmp_path, 1)
  read_step = checkpoints.read_step

  def read_late(path, *args):
    if path.endswith('1'):  # a trainer that keeps one was faster
      shutil.rmtree(path)
      helpers.write(tmp_path, 2)
    return read_step(path, *args)

  monkeypatch.setattr(checkpoints, 'read_step', read_late)
  assert selection.restore_latest(tmp_path)[1] == 2
  shutil.rmtree(directory / '2')
  assert selection.restore_latest(tmp_path) is None
  assert warnings == []


def test_an_empty_step_directory_is_no_checkpoint(tmp_path):
  (tmp_path / 'checkpoints' / '5').mkdir(parents=True)
  assert helpers.restore(tmp_path) is None


def test_a_resumed_run_saves_again_what_was_unreadable(tmp_path, warnings):
  directory = helpers.write(tmp_path, 1, 2, 3)
  for step in '23':
    helpers.damage(directory / step / 'state' / 'manifest.ocdbt', 'half')
  helpers.assert_step(tmp_path, 1)
  manager = checkpoints.open_manager(tmp_path, POLICY, resumed_step=1)
  assert checkpoints.steps(tmp_path) == [1]
  assert checkpoints.save(manager, helpers.make_state(2), helpers.CONFIG)
  checkpoints.close(manager)
  helpers.assert_step(tmp_path, 2)
  assert (directory / 'unreadable-3').is_dir()


def test_for_another_model_the_config_fields_that_differ_are_named(tmp_path):
  helpers.write(tmp_path, 1)
  now = {**helpers.CONFIG, 'learner': {**helpers.CONFIG['learner'], 'width': 8}}
  state = helpers.make_state(0, width=8)
  text = errors.refusal(selection.restore_latest, tmp_path, state, now)
  assert (
    'params/block0/kernel is float32[30, 4], expected float32[30, 8]' in text
  )
  assert text.endswith('the config differs: learner.width: 4 stored, 8 now')


def test_a_target_of_another_dtype_is_refused(tmp_path):
  helpers.write(tmp_path, 1)
  with pytest.raises(core.BadInput, match=r'expected float16\[30, 4\]'):
    selection.restore_latest(tmp_path, helpers.make_state(0, dtype=jnp.float16))


def test_missing_and_surplus_leaves_are_named(tmp_path):
  helpers.write(tmp_path, 1)
  state = helpers.make_state(0)
  state.params['new'] = jnp.zeros(3)
  with pytest.raises(core.BadInput, match='params/new is missing'):
    selection.restore_latest(tmp_path, state)
  del state.params['new'], state.params['half']
  with pytest.raises(core.BadInput, match=r'params/half .* expected none'):
    selection.restore_latest(tmp_path, state)
  other = core.TrainState(jnp.int32(0), helpers.make_state(0).params, ())
  with pytest.raises(core.BadInput, match=r'opt_state/.* expected none'):
    selection.restore_latest(tmp_path, other)
