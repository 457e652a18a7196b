"""Best steps, steps by number, and grafts from upstream runs."""

import os

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from hyperudl import core
from hyperudl.storage import checkpoints
from hyperudl.storage import selection
from tests.testing import tiny_states


def test_the_best_stay_whatever_their_order(tmp_path):
  metrics = {1: 0.1, 2: 0.9, 3: np.nan, 4: 0.8, 5: 0.2, 6: np.inf, 7: -np.inf}
  is_best = [
    tiny_states.keep_best(tmp_path, step, m) for step, m in metrics.items()
  ]
  assert is_best == [True, True, False, True, False, False, False]
  assert selection.best_steps(tmp_path) == [2, 4]
  assert sorted(os.listdir(tmp_path / 'best')) == ['2', '4']
  assert tiny_states.keep_best(
    tmp_path, 3, 0.95
  )  # an earlier step, after a later one
  assert selection.best_steps(tmp_path) == [3, 2]


def test_of_equal_metrics_the_first_stays_and_none_is_saved_twice(tmp_path):
  assert tiny_states.keep_best(tmp_path, 1, 0.5, keep=1)
  assert not tiny_states.keep_best(tmp_path, 2, 0.5, keep=1)
  assert tiny_states.keep_best(tmp_path, 1, 0.7, keep=1)
  assert not tiny_states.keep_best(tmp_path, 3, 0.9, keep=0)
  assert selection.best_steps(tmp_path) == [1]
  assert selection.best_steps(tmp_path / 'missing') == []


def test_no_step_before_select_after_is_among_the_best(tmp_path):
  assert not tiny_states.keep_best(tmp_path, 4, 0.9, select_after=5)
  assert tiny_states.keep_best(tmp_path, 5, 0.1, select_after=5)
  assert selection.best_steps(tmp_path) == [5]


def test_the_best_is_never_a_state_that_is_not_finite(tmp_path):
  state = {'params': {'w': jnp.array([1.0, np.nan])}}
  with pytest.raises(core.NonFinite):
    checkpoint = checkpoints.Checkpoint(state, 4, tiny_states.CONFIG)
    selection.keep_best(tmp_path, checkpoint, 0.5, tiny_states.POLICY)
  assert selection.best_steps(tmp_path) == []


def test_steps_are_restored_by_name_and_number(tmp_path):
  tiny_states.write(tmp_path, *map(tiny_states.make_state, (1, 2, 3)))
  for step, metric in ((1, 0.5), (4, 0.9), (2, 0.1)):
    tiny_states.keep_best(tmp_path, step, metric, keep=3)
  for name, step in (('latest', 3), ('best', 4), (2, 2), ('2', 2), (4, 4)):
    restored = selection.restore_step(tmp_path, name, tiny_states.make_state(0))
    assert (restored.step, restored.config) == (step, tiny_states.CONFIG)
    assert (restored.state.params['w'] == step).all()


@pytest.mark.parametrize('step', ['latest', 'best', 7])
def test_for_a_missing_step_the_message_lists_those_that_exist(tmp_path, step):
  with pytest.raises(core.BadInput, match=f'no checkpoint {step!r} in'):
    selection.restore_step(tmp_path, step)
  if step == 7:
    tiny_states.write(tmp_path, tiny_states.make_state(5))
    with pytest.raises(core.BadInput, match=r'steps \[5\] and best \[\]'):
      selection.restore_step(tmp_path, step)


def test_a_damaged_best_gives_way_to_the_next(tmp_path, warnings):
  tiny_states.keep_best(tmp_path, 1, 0.5)
  tiny_states.keep_best(tmp_path, 2, 0.9)
  tiny_states.damage(tmp_path / 'best' / '2')
  assert selection.restore_step(tmp_path, 'best')[1] == 1
  (tmp_path / 'best' / '1' / 'meta' / 'metadata').write_text('{}')
  with pytest.raises(core.Unreadable, match=r'steps \[1, 2\]'):
    selection.restore_step(tmp_path, 'best')
  assert any('best/2' in line for line in warnings)


def upstream_params(value, width=2):
  return {'w': jnp.full((3, width), value, jnp.float32)}


def test_a_graft_takes_the_upstream_and_its_own_frozen_networks(tmp_path):
  had = {'vae': upstream_params(7), 'elsewhere': upstream_params(8)}
  tiny_states.write(tmp_path, tiny_states.make_state(2, had))
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
  tiny_states.write(
    tmp_path, tiny_states.make_state(2), tiny_states.make_state(3)
  )
  params = {'frozen': {'base': upstream_params(0)}}
  latest = selection.graft(params, 'base', tmp_path)
  assert latest['frozen']['base']['w'][0, 0] == 3
  tiny_states.keep_best(tmp_path, 2, 0.5)
  best = selection.graft(params, 'base', tmp_path)
  assert best['frozen']['base']['w'][0, 0] == 2


def test_a_trainable_entry_starts_from_the_entry_of_the_same_name(tmp_path):
  shared = {**upstream_params(4), 'head': jnp.ones(3)}
  state = tiny_states.make_state(2)
  params = {**state.params, 'shared': shared}
  tiny_states.write(
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
  tiny_states.write(
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
  tiny_states.write(
    tmp_path, tiny_states.make_state(2, {'vae': upstream_params(7)})
  )
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
  tiny_states.write(tmp_path, tiny_states.make_state(1))
  tiny_states.damage(tmp_path / 'checkpoints' / '1')
  with pytest.raises(core.Unreadable):
    selection.graft(params, 'base', tmp_path)


def test_the_metric_is_saved_with_the_best(tmp_path):
  tiny_states.keep_best(tmp_path, 3, 0.25)
  path = checkpoints.step_path(tmp_path, 'best', 3)
  assert checkpoints.read_meta(path)['metric'] == 0.25
