"""Networks and prototypes of a sequence, generated one task after another."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hyperudl.learners.hypertransformer import target_network
from hyperudl.learners.hypertransformer import weight_generator
from tests.testing import continual as helper

WAY, TASKS = helper.WAY, helper.TASKS


def replace_support(episode, at):
  """The sequence with other support images of the task `at`."""
  x = episode.support.x
  x = x.at[at].set(1 - x[at])
  return episode._replace(support=episode.support._replace(x=x))


def changed(one, other):
  """bool[T]: whether the CNN of each step differs."""
  gap = np.zeros(TASKS)
  for a, b in zip(jax.tree.leaves(one['cnns']), jax.tree.leaves(other['cnns'])):
    gap += np.abs(a - b).reshape(TASKS, -1).max(axis=1)
  return (gap > 1e-5).tolist()


@pytest.mark.parametrize(
  'kind, expected',
  [
    ('continual', [False, True, True]),
    ('reset', [False, True, False]),
    ('constant', [False, False, False]),
    ('merged', [False, True, True]),
  ],
)
def test_a_task_changes_the_networks_from_then_on(kind, expected):
  params, run = helper.built(kind=kind)
  episode = helper.episode_of()
  here = run(params, episode)[0]
  there = run(params, replace_support(episode, 1))[0]
  assert changed(here, there) == expected
  prototypes = np.abs(here['prototypes'] - there['prototypes'])
  if kind == 'merged':
    assert prototypes[0][[0, 2]].max() < 1e-5 < prototypes[1, 0].max()
  else:
    # Computed at their task, and stored.
    assert prototypes[:, 0].max() < 1e-5 < prototypes[:, 1].max()
    later = prototypes[:, 2].max() > 1e-5
    assert later == (kind == 'continual')


def test_generated_changes_are_added_to_the_previous_network():
  params, run = helper.built(change=0.2)
  episode = helper.episode_of()
  cnns = run(params, episode)[0]['cnns']
  # Block 0 as it is now, so that block 1 is generated behind that one.
  second = helper.network(trained_layers=1)
  key = jax.random.key(0)

  @jax.jit
  def generate(part, before, now):
    conditioning = weight_generator.Conditioning(before)
    first = weight_generator.generate(
      helper.network(), params, part, key, False, conditioning
    )
    learned = {**params, 'net': {**params['net'], 'block0': now['block0']}}
    then = weight_generator.generate(
      second, learned, part, key, False, conditioning
    )
    return {'block0': first['block0'], 'block1': then['block1']}

  at = lambda t: jax.tree.map(lambda leaf: leaf[t], cnns)
  parts = lambda t: jax.tree.map(lambda leaf: leaf[t], episode.support)
  start = jax.tree.map(jnp.zeros_like, at(0))
  close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)
  for t, before in ((0, start), (1, at(0)), (2, at(1))):
    generated = generate(parts(t), before, at(t))
    for name, layer in at(t).items():
      kernel = generated[name]['kernel']
      wanted = kernel if t == 0 else before[name]['kernel'] + 0.2 * kernel
      close(layer['kernel'], wanted)
      # Learned parameters stay as they are.
      for leaf, value in params['net'].get(name, {}).items():
        close(layer[leaf], value)
  assert any('scale' in layer for layer in params['net'].values())


def test_parts_of_one_task_are_met_one_after_another():
  params, run = helper.built(scenario='batches')
  episode = helper.single(helper.episode_of())
  task, logits, _, metrics, measured = run(params, episode)
  sums = 0.0
  for t in range(TASKS):
    cnn = jax.tree.map(lambda leaf: leaf[t], task['cnns'])
    # Two rows a class and part: class c holds rows c * 6 .. c * 6 + 5.
    rows = [episode.support.x[c * 6 + t : c * 6 + 6 : 3] for c in (0, 1)]
    features = [target_network.embed(helper.network(), cnn, x) for x in rows]
    means = [each.mean(axis=0) for each in features]
    sums = sums + np.stack(means)
    np.testing.assert_allclose(
      task['prototypes'][t, t], sums / (t + 1), rtol=1e-3, atol=1e-4
    )
  assert logits.shape == (2 * WAY, WAY)
  accuracy = np.mean(np.argmax(logits, -1) == np.asarray(episode.query.y))
  assert measured['accuracy'] == metrics['accuracy'] == np.float32(accuracy)
  assert measured[f'accuracy_part_{TASKS}'] == measured['accuracy']
