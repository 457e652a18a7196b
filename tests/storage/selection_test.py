"""Best steps, steps by number, grafts from upstream runs, and polling."""

import os
import shutil
import threading
import time

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from hyperudl import core
from hyperudl.storage import checkpoints
from hyperudl.storage import selection

CONFIG = {'seed': 0}
POLICY = checkpoints.Policy()


def make_state(step, frozen=None):
  params = {'w': jnp.full((3, 2), step, jnp.float32)}
  if frozen is not None:
    params['frozen'] = frozen
  return core.TrainState(jnp.int32(step), params, optax.sgd(1).init(params))


def write(workdir, *states):
  manager = checkpoints.open_manager(workdir, POLICY)
  for state in states:
    checkpoints.save(manager, state, CONFIG)
  checkpoints.close(manager)


def keep_best(workdir, step, metric, keep=2, select_after=0):
  checkpoint = checkpoints.Checkpoint(make_state(step), step, CONFIG)
  policy = checkpoints.Policy(keep_best=keep, select_after=select_after)
  return selection.keep_best(workdir, checkpoint, metric, policy)


def damage(path):
  manifest = path / 'state' / 'manifest.ocdbt'
  manifest.write_bytes(manifest.read_bytes()[:20])


def test_the_best_stay_whatever_their_order(tmp_path):
  metrics = {1: 0.1, 2: 0.9, 3: np.nan, 4: 0.8, 5: 0.2, 6: np.inf, 7: -np.inf}
  is_best = [keep_best(tmp_path, step, m) for step, m in metrics.items()]
  assert is_best == [True, True, False, True, False, False, False]
  assert selection.best_steps(tmp_path) == [2, 4]
  assert sorted(os.listdir(tmp_path / 'best')) == ['2', '4']
  assert keep_best(tmp_path, 3, 0.95)  # an earlier step, after a later one
  assert selection.best_steps(tmp_path) == [3, 2]


def test_of_equal_metrics_the_first_stays_and_none_is_saved_twice(tmp_path):
  assert keep_best(tmp_path, 1, 0.5, keep=1)
  assert not keep_best(tmp_path, 2, 0.5, keep=1)
  assert keep_best(tmp_path, 1, 0.7, keep=1)
  assert not keep_best(tmp_path, 3, 0.9, keep=0)
  assert selection.best_steps(tmp_path) == [1]
  assert selection.best_steps(tmp_path / 'missing') == []


def test_no_step_before_select_after_is_among_the_best(tmp_path):
  assert not keep_best(tmp_path, 4, 0.9, select_after=5)
  assert keep_best(tmp_path, 5, 0.1, select_after=5)
  assert selection.best_steps(tmp_path) == [5]


def test_the_best_is_never_a_state_that_is_not_finite(tmp_path):
  state = {'params': {'w': jnp.array([1.0, np.nan])}}
  with pytest.raises(core.NonFinite):
    checkpoint = checkpoints.Checkpoint(state, 4, CONFIG)
    selection.keep_best(tmp_path, checkpoint, 0.5, POLICY)
  assert selection.best_steps(tmp_path) == []


def test_steps_are_restored_by_name_and_number(tmp_path):
  write(tmp_path, *map(make_state, (1, 2, 3)))
  for step, metric in ((1, 0.5), (4, 0.9), (2, 0.1)):
    keep_best(tmp_path, step, metric, keep=3)
  for name, step in (('latest', 3), ('best', 4), (2, 2), ('2', 2), (4, 4)):
    restored = selection.restore_step(tmp_path, name, make_state(0))
    assert (restored.step, restored.config) == (step, CONFIG)
    assert (restored.state.params['w'] == step).all()


@pytest.mark.parametrize('step', ['latest', 'best', 7])
def test_for_a_missing_step_the_message_lists_those_that_exist(tmp_path, step):
  with pytest.raises(core.BadInput, match=f'no checkpoint {step!r} in'):
    selection.restore_step(tmp_path, step)
  if step == 7:
    write(tmp_path, make_state(5))
    with pytest.raises(core.BadInput, match=r'steps \[5\] and best \[\]'):
      selection.restore_step(tmp_path, step)


def test_a_damaged_best_gives_way_to_the_next(tmp_path, warnings):
  keep_best(tmp_path, 1, 0.5)
  keep_best(tmp_path, 2, 0.9)
  damage(tmp_path / 'best' / '2')
  assert selection.restore_step(tmp_path, 'best')[1] == 1
  (tmp_path / 'best' / '1' / 'meta' / 'metadata').write_text('{}')
  with pytest.raises(core.Unreadable, match=r'steps \[1, 2\]'):
    selection.restore_step(tmp_path, 'best')
  assert any('best/2' in line for line in warnings)


def upstream_params(value, width=2):
  return {'w': jnp.full((3, width), value, jnp.float32)}


def test_a_graft_takes_the_upstream_and_its_own_frozen_networks(tmp_path):
  had = {'vae': upstream_params(7), 'elsewhere': upstream_params(8)}
  write(tmp_path, make_state(2, had))
  params = {
    'own': jnp.ones(2),
    'frozen': {
      'base': upstream_params(0),
      'vae': upstream_params(0),
      'other': upstream_params(0),
    },
  }
  grafted = selection.graft(params, 'base', str(tmp_path))
  values = {k: float(v['w'][0, 0]) for k, v in grafted['frozen'].items()}
  assert values == {'base': 2, 'vae': 7, 'other': 0}
  assert grafted['own'] is params['own']
  assert float(params['frozen']['base']['w'][0, 0]) == 0  # not in place


def test_a_graft_prefers_the_best_step(tmp_path):
  write(tmp_path, make_state(2), make_state(3))
  params = {'frozen': {'base': upstream_params(0)}}
  latest = selection.graft(params, 'base', tmp_path)
  assert latest['frozen']['base']['w'][0, 0] == 3
  keep_best(tmp_path, 2, 0.5)
  best = selection.graft(params, 'base', tmp_path)
  assert best['frozen']['base']['w'][0, 0] == 2


def test_a_trainable_entry_starts_from_the_entry_of_the_same_name(tmp_path):
  shared = {**upstream_params(4), 'head': jnp.ones(3)}
  state = make_state(2)
  params = {**state.params, 'shared': shared}
  write(
    tmp_path,
    core.TrainState(state.step, params, optax.sgd(1).init(params)),
  )
  mine = {'shared': upstream_params(0), 'own': jnp.ones(2), 'frozen': {}}
  warm = selection.graft(mine, 'shared', tmp_path)
  # The head that the upstream had and this learner has not is left out.
  assert set(warm['shared']) == {'w'} and warm['shared']['w'][0, 0] == 4
  assert warm['own'] is mine['own'] and warm['frozen'] == {}
  more = {'shared': {**upstream_params(0), 'bias': jnp.ones(1)}}
  with pytest.raises(core.BadInput, match=': shared/bias is missing'):
    selection.graft(more, 'shared', tmp_path)
  with pytest.raises(core.BadInput, match='own/w is missing'):
    selection.graft({'own': upstream_params(0)}, 'own', tmp_path)


def test_a_backbone_fills_a_network_that_has_a_head_of_its_own(tmp_path):
  write(
    tmp_path, core.TrainState(jnp.int32(3), {'net': upstream_params(4)}, ())
  )
  head = {'kernel': jnp.ones(2)}
  mine = {'net': {**upstream_params(0), 'head': head}}
  warm = selection.graft(mine, 'net', tmp_path)['net']
  assert warm['w'][0, 0] == 4 and (warm['head']['kernel'] == 1).all()
  # A learner may call its backbone otherwise.
  trunk = selection.graft({'trunk': upstream_params(0)}, 'trunk', tmp_path)
  assert trunk['trunk']['w'][0, 0] == 4


def test_a_graft_that_does_not_fit_names_the_leaf_and_both_shapes(tmp_path):
  write(tmp_path, make_state(2, {'vae': upstream_params(7)}))
  wide, fits = upstream_params(0, 5), upstream_params(0)
  for frozen, leaf in (
    ({'base': wide}, 'base/w'),
    ({'base': fits, 'vae': wide}, 'vae/w'),
  ):
    text = rf'frozen/{leaf} is float32\[3, 2\], expected float32\[3, 5\]'
    with pytest.raises(core.BadInput, match=text):
      selection.graft({'frozen': frozen}, 'base', tmp_path)
  with pytest.raises(core.BadInput, match='frozen/base/b is missing'):
    more = {'base': {**fits, 'b': jnp.ones(1)}}
    selection.graft({'frozen': more}, 'base', tmp_path)
  with pytest.raises(core.BadInput, match=r'frozen/base/w is .* none'):
    selection.graft({'frozen': {'base': {}}}, 'base', tmp_path)


def test_a_graft_needs_an_upstream_and_a_place(tmp_path):
  params = {'frozen': {'base': upstream_params(0)}}
  with pytest.raises(core.BadInput, match='no checkpoint there'):
    selection.graft(params, 'base', tmp_path / 'missing')
  with pytest.raises(core.BadInput, match=r"only \['base'\]"):
    selection.graft(params, 'vae', tmp_path)
  write(tmp_path, make_state(1))
  damage(tmp_path / 'checkpoints' / '1')
  with pytest.raises(core.Unreadable):
    selection.graft(params, 'base', tmp_path)


def poll(workdir, stop=lambda: True, interrupted=None, done=()):
  """Poll often, and give up after 20 seconds."""
  deadline = time.monotonic() + 20
  interrupted = interrupted or (lambda: time.monotonic() > deadline)
  return selection.poll(
    workdir, make_state(0), stop, interrupted, done, seconds=0.02
  )


def test_the_poll_follows_a_trainer_that_keeps_one(tmp_path):
  """It starts before the first step, and ends with the last."""
  end = tmp_path / 'DONE'

  def train():
    time.sleep(0.2)
    keep_one = checkpoints.Policy(keep_latest=1)
    manager = checkpoints.open_manager(tmp_path, keep_one)
    for step in range(1, 13):
      checkpoints.save(manager, make_state(step), CONFIG)
      time.sleep(0.05)
    checkpoints.close(manager)
    end.touch()

  thread = threading.Thread(target=train)
  thread.start()
  polled = []
  for state, step, config in poll(tmp_path, end.exists):
    assert (state.params['w'] == step).all() and config == CONFIG
    time.sleep(0.07)  # an evaluation slower than the trainer
    polled.append(step)
  thread.join()
  assert polled == sorted(set(polled))
  assert polled[-1] == 12 and len(polled) >= 3
  assert os.listdir(tmp_path / 'checkpoints') == ['12']


def test_a_step_deleted_while_it_is_read_is_skipped_silently(
  tmp_path, monkeypatch, warnings
):
  write(tmp_path, make_state(1))
  read_step = checkpoints.read_step

  def read_late(path, *args):
    if path.endswith('1'):  # the trainer was faster
      shutil.rmtree(path)
      write(tmp_path, make_state(2))
    return read_step(path, *args)

  monkeypatch.setattr(checkpoints, 'read_step', read_late)
  assert [step for _, step, _ in poll(tmp_path)] == [2]
  assert warnings == []


def test_a_restarted_poll_leaves_out_what_is_done(tmp_path):
  write(tmp_path, make_state(1), make_state(2))
  assert [step for _, step, _ in poll(tmp_path)] == [2]
  assert list(poll(tmp_path, done=[2])) == []
  assert list(poll(tmp_path / 'missing')) == []


def test_an_unreadable_step_is_reported_once_and_left_out(tmp_path, warnings):
  write(tmp_path, make_state(1), make_state(2))
  damage(tmp_path / 'checkpoints' / '2')
  ended = []
  polling = poll(tmp_path, stop=lambda: bool(ended))
  threading.Timer(0.3, lambda: write(tmp_path, make_state(3))).start()
  assert next(polling)[1] == 3
  ended.append(True)
  assert list(polling) == []
  assert len(warnings) == 1 and 'checkpoints/2' in warnings[0]


def test_a_trainer_that_went_back_is_followed(tmp_path):
  """After damage a run resumes from an earlier step and saves those again."""
  write(tmp_path, make_state(1), make_state(5))
  ended = []
  polling = poll(tmp_path, stop=lambda: bool(ended), done=[1])
  assert next(polling)[1] == 5

  def go_back():
    manager = checkpoints.open_manager(tmp_path, POLICY, resumed_step=1)
    checkpoints.save(manager, make_state(3), CONFIG)
    checkpoints.close(manager)

  threading.Timer(0.1, go_back).start()
  assert next(polling)[1] == 3
  ended.append(True)
  assert list(polling) == []


def test_an_interrupt_ends_the_wait(tmp_path):
  flag = threading.Event()
  threading.Timer(0.2, flag.set).start()
  begin = time.monotonic()
  waiting = poll(tmp_path, stop=lambda: False, interrupted=flag.is_set)
  assert list(waiting) == []
  assert 0.1 < time.monotonic() - begin < 5


def test_a_poll_for_another_model_is_refused(tmp_path):
  write(tmp_path, make_state(1))
  target = {'params': {'w': jnp.zeros((3, 9))}}
  with pytest.raises(core.BadInput, match=r'expected float32\[3, 9\]'):
    list(selection.poll(tmp_path, target, lambda: True, lambda: False))


def test_the_metric_is_saved_with_the_best(tmp_path):
  keep_best(tmp_path, 3, 0.25)
  path = checkpoints.step_path(tmp_path, 'best', 3)
  assert checkpoints.read_meta(path)['metric'] == 0.25
