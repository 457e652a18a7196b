"""Target networks on features and pixels."""

import jax
from jax.flatten_util import ravel_pytree
import jax.numpy as jnp
import numpy as np
import pytest

from hyperudl.nets import target_nets
from hyperudl.nets import towers

WIDTH, HIDDEN, WAY = 5, 4, 3
WORDS = towers.Words(
  jnp.ones(WIDTH),
  jnp.asarray(np.random.default_rng(1).normal(size=(WAY, WIDTH)), jnp.float32),
  jnp.array([1.0, 1.0, 0.0]),
)
TARGETS = {
  'adapter': target_nets.adapter(WIDTH, HIDDEN, 10.0),
  'head': target_nets.head(WIDTH, WAY),
  'convnet': target_nets.convnet(WIDTH, (3, 4), 10.0),
}


def images(kind):
  shape = (6, 8, 8, 1) if kind == 'convnet' else (6, WIDTH)
  return jax.random.normal(jax.random.key(0), shape)


@pytest.mark.parametrize('kind', TARGETS)
def test_weights_of_every_target_survive_a_round_trip_through_a_vector(kind):
  x, target = images(kind), TARGETS[kind]
  weights = target.init(jax.random.key(1), x)
  flat, unravel = ravel_pytree(weights)
  again = unravel(flat)
  jax.tree.map(np.testing.assert_array_equal, weights, again)
  features = jax.random.normal(jax.random.key(2), (6, WIDTH))
  logits = target.logits(again, x, features, WORDS)
  assert logits.shape == (6, WAY)
  # An answer that the task does not have is never given.
  assert (logits.argmax(axis=1) < 2).all() and (logits[:, 2] < -1e8).all()


def test_the_adapter_is_the_formula_of_the_paper():
  rng = np.random.default_rng(0)
  weights = {
    'inner': rng.normal(size=(WIDTH, HIDDEN)),
    'inner_bias': rng.normal(size=HIDDEN),
    'outer': rng.normal(size=(HIDDEN, WIDTH)),
    'outer_bias': rng.normal(size=WIDTH),
  }
  x = rng.normal(size=(6, WIDTH))
  hidden = x @ weights['inner'] / np.sqrt(WIDTH) + weights['inner_bias']
  out = np.maximum(hidden, 0) @ weights['outer'] / np.sqrt(HIDDEN)
  out = out + weights['outer_bias'] + x
  unit = lambda v: v / np.linalg.norm(v, axis=1, keepdims=True)
  expected = 10 * unit(out) @ unit(np.asarray(WORDS.answers)).T
  logits = TARGETS['adapter'].logits(weights, x, x, WORDS)
  np.testing.assert_allclose(
    logits[:, :2], expected[:, :2], rtol=1e-3, atol=1e-4
  )


def test_a_fresh_adapter_leaves_the_features_as_they_are():
  x = images('adapter')
  weights = TARGETS['adapter'].init(jax.random.key(1), x)
  logits = TARGETS['adapter'].logits(weights, x, x, WORDS)
  np.testing.assert_allclose(
    logits, towers.cosine_logits(x, WORDS, 10.0), rtol=1e-4
  )
