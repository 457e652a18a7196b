"""Self-supervised losses against plain loops."""

import jax
import jax.numpy as jnp
import numpy as np

from hyperudl.learners.udl import unsupervised

MASK = jnp.array([1, 1, 0, 1, 1.0])


def _features(seed, width=6):
  rng = np.random.default_rng(seed)
  return jnp.asarray(rng.normal(size=(5, width)), jnp.float32)


def test_infonce_equals_plain_loops_and_ignores_masked_rows():
  params = unsupervised.init_projector(jax.random.key(0), 6, hidden=4)
  first, second = _features(0), _features(1)
  project = lambda x: unsupervised._two_layers(params, x)
  unit = lambda v: np.asarray(v) / np.linalg.norm(v, axis=1, keepdims=True)
  a, b = unit(project(first)), unit(project(second))
  rows, total = [0, 1, 3, 4], 0.0
  for left, right in ((a, b), (b, a)):
    for i in rows:
      scores = np.array([left[i] @ right[j] / 0.07 for j in rows])
      top = left[i] @ right[i] / 0.07
      total += np.log(np.sum(np.exp(scores - top))) / (2 * len(rows))
  found = unsupervised.infonce(params, first, second, MASK)
  np.testing.assert_allclose(found, total, rtol=1e-4)
  moved = unsupervised.infonce(
    params, first.at[2].set(9.0), second.at[2].set(-9.0), MASK
  )
  np.testing.assert_allclose(moved, total, rtol=1e-4)


def test_balanced_entropy_is_the_negative_mutual_information():
  logits = _features(2, 3)
  p = np.asarray(jax.nn.softmax(logits))[[0, 1, 3, 4]]
  entropy = lambda q: -np.sum(q * np.log(q), axis=-1)
  expected = entropy(p).mean() - entropy(p.mean(axis=0))
  found = unsupervised.balanced_entropy(logits, MASK)
  np.testing.assert_allclose(found, expected, rtol=1e-4)
  # Certain and even: -log N. All the same class: 0.
  certain = 50 * jnp.eye(3)
  np.testing.assert_allclose(
    unsupervised.balanced_entropy(certain, jnp.ones(3)), -np.log(3), rtol=1e-4
  )
  same = jnp.tile(certain[:1], (3, 1))
  np.testing.assert_allclose(
    unsupervised.balanced_entropy(same, jnp.ones(3)), 0, atol=1e-4
  )


def test_views_tell_how_far_they_lie_apart():
  x = jnp.zeros((1, 16, 16, 1)).at[0, 8, 8].set(5.0)
  seen = set()
  for seed in range(8):
    first, second, moved = unsupervised.views(jax.random.key(seed), x)
    place = lambda v: np.array(np.unravel_index(np.argmax(v[0]), v.shape[1:]))
    gap = (place(second) - place(first))[:2]
    np.testing.assert_allclose(4 * moved, gap)
    seen.add(tuple(gap))
  assert len(seen) > 4


def test_a_displacement_can_be_learned_from_where_things_are():
  """Features that are positions: a linear answer exists, and it is found."""
  params = unsupervised.init_displacement(jax.random.key(0), 2)

  def pairs(key):
    here, there = jax.random.uniform(key, (2, 2), minval=-0.5, maxval=0.5)
    rows = lambda v: jnp.tile(v, (3, 1))
    return rows(here), rows(there), there - here

  def loss(params, key):
    first, second, moved = pairs(key)
    return unsupervised.displacement(
      params, first, second, moved, jnp.array([1, 1, 0.0])
    )

  @jax.jit
  def train(params):
    def body(params, key):
      keys = jax.random.split(key, 16)
      mean = lambda p: jnp.mean(jax.vmap(lambda k: loss(p, k))(keys))
      grads = jax.grad(mean)(params)
      return jax.tree.map(lambda p, g: p - 0.2 * g, params, grads), None

    keys = jax.random.split(jax.random.key(1), 300)
    return jax.lax.scan(body, params, keys)[0]

  test = jax.random.split(jax.random.key(2), 64)
  score = lambda p: float(jnp.mean(jax.vmap(lambda k: loss(p, k))(test)))
  assert score(train(params)) < 0.1 * score(params)
