"""Hallucination: what it reduces to, whom it copies, what it reports."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hyperudl import core
from hyperudl.learners import hallucination
from hyperudl.learners import protonet

WAY, SHOT = 3, 2
TINY = {'channels': (4, 4)}
SMALL = {**TINY, 'hidden': 8, 'noise_size': 2, 'count': 5}


def episode_of(seed=0, unlabelled=0):
  keys = jax.random.split(jax.random.key(seed), 2)
  y = jnp.concatenate(
    [jnp.tile(jnp.arange(WAY), SHOT), jnp.full(unlabelled, -1)]
  )
  draw = lambda key, rows: jax.random.uniform(key, (rows, 8, 8, 1))
  return core.Episode(
    core.Examples(draw(keys[0], len(y)), y),
    core.Examples(draw(keys[1], 9), jnp.tile(jnp.arange(WAY), 3)),
  )


def made(key=0, train=False, unlabelled=0, move=True, **settings):
  """(hallucinations, features of the support, learner's parameters)."""
  settings = {**SMALL, **settings}
  learner = hallucination.make(WAY, **settings)
  episode = episode_of(unlabelled=unlabelled)
  params = jax.jit(learner.init)(jax.random.key(1), episode)
  if move:  # the generator off its start
    noise = lambda leaf: (
      leaf + 0.1 * jax.random.normal(jax.random.key(leaf.size), leaf.shape)
    )
    params = {**params, 'generator': jax.tree.map(noise, params['generator'])}
  names = hallucination._Settings._fields
  defaults = {**hallucination.make.__kwdefaults__, **settings}
  s = hallucination._Settings(
    **{k: defaults[k] for k in names if k != 'test_count'},
    test_count=settings['count'],
  )
  p = protonet.settings_of(WAY, **TINY)
  z = protonet.embed(p, params, episode.support.x)
  features = hallucination.hallucinate(
    s,
    params,
    z,
    episode.support.y,
    WAY,
    settings['count'],
    jax.random.key(key),
    train,
  )
  return np.asarray(features), np.asarray(z), params


def test_without_hallucinations_it_is_protonet_bit_for_bit():
  episode, key = episode_of(), jax.random.key(1)
  ours = hallucination.make(WAY, **{**SMALL, 'count': 0})
  plain = protonet.make(WAY, **TINY)
  params = jax.jit(ours.init)(key, episode)
  for a, b in zip(
    jax.tree.leaves(params), jax.tree.leaves(jax.jit(plain.init)(key, episode))
  ):
    np.testing.assert_array_equal(a, b)
  run = lambda learner: jax.jit(
    jax.value_and_grad(lambda p: learner.loss(p, episode, key, 0)[0])
  )(params)
  for a, b in zip(jax.tree.leaves(run(ours)), jax.tree.leaves(run(plain))):
    np.testing.assert_array_equal(a, b)


def test_the_residual_start_leaves_prototypes_where_they_are():
  episode, key = episode_of(), jax.random.key(1)
  # One shot: every hallucination is a copy of the one image.
  one = episode._replace(
    support=core.Examples(episode.support.x[:WAY], episode.support.y[:WAY])
  )
  ours = hallucination.make(WAY, **SMALL)
  params = jax.jit(ours.init)(key, one)
  task = ours.adapt(params, one.support, key, train=True)
  plain = protonet.make(WAY, **TINY)
  wanted = plain.adapt(params, one.support, key, train=True)
  np.testing.assert_allclose(task, wanted, rtol=1e-5)


@pytest.mark.parametrize('generator', hallucination.GENERATORS)
def test_copies_are_of_the_class_and_noise_tells_them_apart(generator):
  features, z, _ = made(move=False, generator=generator, unlabelled=2)
  assert features.shape == (WAY, 5, z.shape[1]) and features.min() >= 0
  if generator == 'residual':  # at its start it copies rows of the class
    for label in range(WAY):
      rows = z[label : WAY * SHOT : WAY]
      for copy in features[label]:
        assert np.abs(rows - copy).max(axis=1).min() < 1e-6
    both = made(move=False, count=40)[0]
    assert len(np.unique(both[0].round(5), axis=0)) == SHOT  # every row
  moved, _, _ = made(generator=generator)
  assert len(np.unique(moved[0], axis=0)) == 5
  again, _, _ = made(key=1, generator=generator)
  assert np.abs(again - moved).max() > 1e-4


def test_fixed_and_no_noise_give_copies_of_the_same_rows():
  for noise in ('fixed', 'zero'):
    features, _, _ = made(noise=noise, count=40)
    assert len(np.unique(features[0], axis=0)) == SHOT
    other, _, _ = made(noise=noise, count=40, key=5)
    assert {row.tobytes() for row in other[0]} == {
      row.tobytes() for row in features[0]
    }


def test_dropout_acts_in_training_alone():
  options = {'generator': 'source', 'noise': 'zero'}
  first, _, _ = made(train=True, **options)
  second, _, _ = made(train=True, key=3, **options)
  assert np.abs(first - second).max() > 1e-4
  still = made(train=False, **options)[0]
  assert len(np.unique(still[0].round(6), axis=0)) <= SHOT


def test_the_source_has_its_widths():
  module = hallucination.Generator('source', 1, 0.5)
  z = jnp.zeros((1, 1600))
  init = lambda key: module.init(key, z, z, False)
  shapes = jax.eval_shape(init, jax.random.key(0))
  kernels = [v['kernel'].shape for v in shapes['params'].values()]
  assert kernels == [(3200, 2400), (2400, 2400), (2400, 1600)]


@pytest.mark.parametrize('weight', hallucination.WEIGHTS)
def test_what_hallucinations_count(weight):
  settings = {**SMALL, 'weight': weight, 'mass': 0.5, 'noise': 'zero'}
  learner = hallucination.make(WAY, **settings)
  episode, key = episode_of(), jax.random.key(2)
  params = jax.jit(learner.init)(key, episode)
  bias = params['generator']['Dense_2']['bias']
  params['generator']['Dense_2']['bias'] = bias + 3.0
  task = learner.adapt(params, episode.support, key, train=False)
  p = protonet.settings_of(WAY, **TINY)
  z = np.asarray(protonet.embed(p, params, episode.support.x))
  share = {'count': 5 / 7, 'learned': 0.5 / 2.5}[weight]
  for label in range(WAY):
    rows = z[label::WAY]
    low, high = rows.min(0) + 3, rows.max(0) + 3  # whichever was copied
    rest = (1 - share) * rows.mean(axis=0)
    assert (task[label] >= rest + share * low - 1e-4).all()
    assert (task[label] <= rest + share * high + 1e-4).all()


def test_quality_by_hand():
  made_ = jnp.array([[[0.0, 0], [2, 0]], [[9, 0], [9, 0]]])
  query = jnp.array([[0.0, 2], [0, 0], [10, 2], [10, 0]])
  truth = jnp.array([[0.0, 1], [10, 1]])
  plain = jnp.array([[0.0, 0], [10, 0]])
  better = jnp.array([[0.0, 1], [10, 0.0]])
  found = hallucination.quality(
    made_, query, jnp.array([0, 0, 1, 1]), better, plain, truth
  )
  assert float(found['diversity']) == pytest.approx((1 + 0) / (1 + 1))
  assert float(found['purity']) == 1
  assert float(found['prototype_error']) == pytest.approx(1 / np.sqrt(2))


def test_a_frozen_embedding_gets_no_gradient_and_the_generator_one():
  learner = hallucination.make(WAY, **SMALL, frozen=True)
  episode, key = episode_of(), jax.random.key(0)
  params = jax.jit(learner.init)(key, episode)
  assert set(params) == {'frozen', 'generator', 'log_mass'}
  assert set(params['frozen']['protonet']) == {'net', 'log_scale'}
  grads = jax.grad(
    lambda g: learner.loss({**params, 'generator': g}, episode, key, 0)[0]
  )(params['generator'])
  assert float(jnp.abs(grads['Dense_2']['kernel']).max()) > 0


@pytest.mark.parametrize(
  'settings, text',
  [
    ({'noise': 'pink'}, 'noise must be one of'),
    ({'count': -1}, 'count must be'),
    ({'mass': 0.0}, 'mass must be'),
    ({'distance': 'l1'}, 'distance must be'),
  ],
  ids=str,
)
def test_bad_settings_are_refused(settings, text):
  with pytest.raises(ValueError, match=text):
    hallucination.make(WAY, **settings)


def test_soft_k_means_of_protonet_by_loops_and_without_unlabelled_rows():
  episode, key = episode_of(unlabelled=4), jax.random.key(0)
  learner = protonet.make(WAY, **TINY, refine=2, scale=0.3)
  params = jax.jit(learner.init)(key, episode)
  task = learner.adapt(params, episode.support, key, train=False)
  p = protonet.settings_of(WAY, **TINY)
  z = np.asarray(protonet.embed(p, params, episode.support.x), np.float64)
  labelled, free = z[: WAY * SHOT], z[WAY * SHOT :]
  start = np.stack([labelled[c::WAY].mean(axis=0) for c in range(WAY)])
  centres = start
  for _ in range(2):
    sums, totals = SHOT * start, np.full(WAY, SHOT, float)
    for row in free:
      distance = np.array([np.sum((row - c) ** 2) for c in centres])
      share = np.exp(-0.3 * (distance - distance.min()))
      share /= share.sum()
      sums, totals = sums + share[:, None] * row, totals + share
    centres = sums / totals[:, None]
  np.testing.assert_allclose(task, centres, rtol=1e-3, atol=1e-4)
  plain = protonet.make(WAY, **TINY, scale=0.3)
  np.testing.assert_allclose(
    plain.adapt(params, episode.support, key, train=False), start, rtol=1e-4
  )


def test_errors_of_prototypes_are_told_of_prototypes_refined_alike():
  learner = hallucination.make(WAY, **{**SMALL, 'mass': 1e-9}, refine=2)
  episode = episode_of(unlabelled=4)
  params = jax.jit(learner.init)(jax.random.key(1), episode)
  found = learner.evaluate(params, episode, jax.random.key(0))
  # Hallucinations without mass leave both the same.
  assert float(found['prototype_error']) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize('distance', protonet.DISTANCES)
def test_logits_by_loops_and_with_finite_gradients(distance):
  rng = np.random.default_rng(0)
  z, c = rng.normal(size=(5, 4)), rng.normal(size=(3, 4))
  to = {
    'l2': lambda u, v: -np.sum((u - v) ** 2),
    'cosine': lambda u, v: u @ v / (np.linalg.norm(u) * np.linalg.norm(v)) - 1,
    'dot': lambda u, v: u @ v,
  }[distance]
  wanted = [[1.7 * to(u, v) for v in c] for u in z]
  logits = lambda z, c: protonet.logits_of(z, c, distance, 1.7)
  np.testing.assert_allclose(logits(z, c), wanted, rtol=1e-4, atol=1e-5)
  for same in (np.ones((3, 4)), np.zeros((3, 4))):
    grads = jax.grad(lambda z, c: logits(z, c).sum(), (0, 1))(same, same)
    assert all(np.isfinite(leaf).all() for leaf in grads)
