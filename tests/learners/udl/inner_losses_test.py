"""Inner losses: what each has a gradient for, and their values by loops."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hyperudl.learners import udl
from hyperudl.learners.udl import fast_weights
from hyperudl.learners.udl import hypernetwork
from hyperudl.learners.udl import inner_loop
from hyperudl.learners.udl import inner_losses
from hyperudl.learners.udl import steps
from tests.testing import udl as helper

ALL_SSL = '+'.join(inner_losses.SSL)
# Of a part of the adapted variable and an ELBO.
PAIRS = (
  ('film', 'features'),
  ('head', 'features'),
  ('shift', 'shift'),
  ('encoder', 'shift'),
)
OTHER_PAIRS = sorted(
  set(itertools.product(fast_weights.PARTS, ('features', 'shift'))) - {*PAIRS}
)


@pytest.mark.parametrize('ssl', [*itertools.permutations(inner_losses.SSL, 2)])
def test_the_order_of_losses_is_that_of_the_table(ssl):
  """Neither the order in the config nor a hash seed changes the program."""
  config = helper.tiny_config(ssl='+'.join(ssl), elbo='features')
  names = ['elbo', *(n for n in inner_losses.SSL if n in ssl), 'critic']
  assert list(inner_losses.active(config)) == names


@pytest.mark.parametrize(
  'part, elbo',
  [
    *PAIRS,
    *(pytest.param(*pair, marks=pytest.mark.slow) for pair in OTHER_PAIRS),
  ],
)
def test_a_loss_has_a_gradient_exactly_where_the_table_says(part, elbo):
  # Without steps no pair is refused.
  config = helper.tiny_config(adapt=part, elbo=elbo, ssl=ALL_SSL, inner_steps=0)

  def jacobian(params, network, support):
    images = inner_loop.select_images(support)
    terms = hypernetwork.elbo_terms(config, params, support.x)
    inputs = inner_losses.draw(images, terms['mean'], jax.random.key(1))

    def values(v):
      under_v = steps.network_under(
        config, params, network, images, v, gated=False
      )
      read = steps.read(config, params, under_v, inputs, v)
      return inner_losses.evaluate(config, params['inner'], read)

    v = fast_weights.identity(config, params, network)
    return jax.jacrev(values)(v)

  gradients = helper.on_network(config, jacobian)()
  assert set(gradients) == {*inner_losses.SSL, 'elbo', 'critic'}
  for name, loss in inner_losses.active(config).items():
    leaves = jax.tree.leaves(gradients[name])
    assert all(jnp.isfinite(leaf).all() for leaf in leaves)
    norm = sum(float(jnp.sum(jnp.square(leaf))) for leaf in leaves) ** 0.5
    if part in fast_weights.REACH[loss.needs]:
      assert norm > 1e-8, name
    else:
      assert norm == 0, name


@pytest.mark.parametrize(
  'changes, message',
  [
    ({'ssl': 'rotation'}, "ssl must be 'none', one of"),
    ({'ssl': 'byol+byol'}, "ssl must be 'none', one of"),
    ({'ssl': 'infonce'}, "ssl must be 'none', one of"),
    ({'elbo': 'pixels'}, 'is none of none, features, shift'),
    ({'critic': 'yes'}, 'is none of none, predictions'),
    (
      {'elbo': 'none', 'ssl': 'none', 'critic': 'none'},
      'no inner loss reaches',
    ),
    ({'elbo': 'shift'}, "elbo = 'shift' has no gradient"),
    (
      {'adapt': 'shift', 'elbo': 'shift', 'setting': 'clusters'},
      "adapt = 'shift' moves prototypes",
    ),
    ({'adapt': 'film+head', 'critic': 'none'}, "reaches adapt = 'head'"),
  ],
)
def test_unknown_losses_and_losses_that_reach_nothing_are_refused(
  changes, message
):
  with pytest.raises(ValueError, match=message):
    helper.tiny_config(**changes)


@pytest.mark.parametrize(
  'changes',
  [
    {'inner_steps': 0, 'elbo': 'none', 'ssl': 'none', 'critic': 'none'},
    {'adapt': 'encoder', 'elbo': 'shift', 'ssl': 'none', 'critic': 'none'},
    {'adapt': 'shift', 'elbo': 'none', 'ssl': 'mixture', 'critic': 'none'},
    {'adapt': 'head', 'elbo': 'none', 'ssl': 'certainty', 'critic': 'none'},
    {'adapt': 'film+head', 'ssl': 'byol+certainty', 'critic': 'none'},
  ],
)
def test_losses_that_reach_every_part_are_accepted(changes):
  helper.tiny_config(**changes)


def inputs_of(**arrays):
  blank = dict.fromkeys(inner_losses.Inputs._fields)
  mask = jnp.array([1, 1, 0, 1, 1.0])
  images = inner_losses.Images(None, mask, None, None, None, False)
  return inner_losses.Inputs(**{**blank, 'images': images, **arrays})


def test_certainty_is_the_mean_entropy_of_the_rows_that_count():
  logits = jax.random.normal(jax.random.key(0), (5, 3))
  p = np.asarray(jax.nn.softmax(logits))[[0, 1, 3, 4]]
  expected = np.mean(-np.sum(p * np.log(p), axis=1))
  value = inner_losses.certainty(None, inputs_of(logits=logits))
  np.testing.assert_allclose(value, expected, rtol=1e-5)


def test_the_mixture_renews_its_proportions_before_its_evidence():
  logits = 3 * jax.random.normal(jax.random.key(0), (5, 3))
  rows = np.asarray(logits, np.float64)[[0, 1, 3, 4]]
  pi = np.full(3, 1 / 3)
  for _ in range(3):
    joint = pi * np.exp(rows)
    pi = (joint / joint.sum(axis=1, keepdims=True)).mean(axis=0)
  expected = -np.mean(np.log((pi * np.exp(rows)).sum(axis=1)))
  value = inner_losses.mixture(None, inputs_of(logits=logits))
  np.testing.assert_allclose(value, expected, rtol=1e-4)
  # The evidence of a mixture cannot fall by expectation maximisation.
  uniform = -np.mean(np.log((np.exp(rows) / 3).sum(axis=1)))
  assert value < uniform


def test_byol_equals_plain_loops():
  keys = jax.random.split(jax.random.key(0), 3)
  params = inner_losses.init_byol(keys[0], udl.Config(), 6, 0, hidden=4)
  views = [np.asarray(jax.random.normal(k, (5, 6))) for k in keys[1:]]

  def perceptron(layers, x):
    first, last = jax.tree.map(np.asarray, layers)
    hidden = np.maximum(x @ first['kernel'] + first['bias'], 0)
    return hidden @ last['kernel'] + last['bias']

  total = 0.0
  for row in (0, 1, 3, 4):
    a, b = (perceptron(params['project'], view[row]) for view in views)
    for online, target in ((a, b), (b, a)):
      online = perceptron(params['predict'], online)
      size = np.linalg.norm(online) * np.linalg.norm(target)
      total += (2 - 2 * online @ target / size) / 8
  inputs = inputs_of(
    first_features=jnp.asarray(views[0]), second_features=jnp.asarray(views[1])
  )
  value = inner_losses.byol(params, inputs)
  np.testing.assert_allclose(value, total, rtol=1e-4)


def random_like(shapes, seed=0):
  rng = np.random.default_rng(seed)
  return jax.tree.map(lambda leaf: rng.normal(size=leaf.shape), shapes)


def test_the_elbo_of_features_equals_plain_loops():
  rng = np.random.default_rng(1)
  make = lambda key: inner_losses.init_feature_elbo(key, None, 6, 8, hidden=4)
  params = random_like(jax.eval_shape(make, jax.random.key(0)))
  features, targets = rng.normal(size=(5, 6)), rng.uniform(size=(5, 8))
  noise = rng.normal(size=(5, inner_losses.LATENT))
  dense = lambda name, x: x @ params[name]['kernel'] + params[name]['bias']
  total = 0.0
  for row in (0, 1, 3, 4):
    mean, log_variance = np.split(dense('posterior', features[row]), 2)
    std = np.exp(np.clip(log_variance, -6, 6) / 2)
    hidden = dense('hidden', mean + std * noise[row])
    hidden = hidden / (1 + np.exp(-hidden))  # SiLU
    image = 1 / (1 + np.exp(-dense('pixels', hidden)))
    error = np.sum((targets[row] - image) ** 2) / (2 * 0.1)
    kl = np.sum(mean**2 + std**2 - 1 - 2 * np.log(std)) / 2
    total += (error + 0.25 * kl) / 8 / 4  # of eight pixels and four rows
  inputs = inputs_of(features=features, targets=targets, noise=noise)
  inputs = jax.tree.map(jnp.asarray, inputs)
  value = inner_losses.feature_elbo(params, inputs)
  np.testing.assert_allclose(value, total, rtol=1e-4)


def test_the_elbo_of_images_is_in_nats_per_pixel_of_the_rows_that_count():
  terms = {
    'nll': jnp.array([1.0, 2, 50, 3, 4]),
    'kl': jnp.array([0.5, 0.5, 70, 1, 0]),
    'image': jnp.zeros((5, 2, 3, 1)),
    'mask': jnp.array([1.0, 1, 0, 1, 1]),
  }
  value = inner_losses.shift_elbo(None, inputs_of(elbo_terms=terms))
  np.testing.assert_allclose(value, (10 + 2) / 4 / 6, rtol=1e-6)


def test_the_critic_is_the_mean_of_a_perceptron_over_rows_that_count():
  config = helper.tiny_config()
  make = lambda key: inner_losses.init_critic(key, config, 0, 0, hidden=4)
  params = random_like(jax.eval_shape(make, jax.random.key(0)))
  logits = np.random.default_rng(1).normal(size=(5, helper.WAY))
  p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
  marginal = p[[0, 1, 3, 4]].mean(axis=0)
  overall = -np.sum(marginal * np.log(marginal))
  total = 0.0
  for row in (0, 1, 3, 4):
    entropy = -np.sum(p[row] * np.log(p[row]))
    x = np.array([*sorted(p[row], reverse=True), entropy, overall])
    hidden = np.tanh(x @ params['first']['kernel'] + params['first']['bias'])
    total += hidden @ params['last'] / 4
  value = inner_losses.critic(params, inputs_of(logits=jnp.asarray(logits)))
  np.testing.assert_allclose(value, total, rtol=1e-4)


def test_the_total_is_weighted_and_auxiliary_losses_are_added():
  config = helper.tiny_config(
    elbo='features',
    ssl='geometry+certainty',
    critic='predictions',
    inner_weight=0.5,
  )
  values = {'elbo': 1.0, 'geometry': 10.0, 'certainty': 100.0, 'critic': 1e3}
  assert inner_losses.total(config, {}, values) == 1000 + 0.5 * 111
  weights = {'elbo': 3.0, 'geometry': -1.0, 'certainty': 2.0}
  total = inner_losses.total(config, {'weights': weights}, values)
  assert total == 1000 + 3 - 10 + 200
  assert inner_losses.auxiliary(config, values) == 11


def test_a_view_is_moved_by_up_to_two_pixels_with_faint_noise():
  x = jnp.zeros((1, 16, 16, 1)).at[0, 8, 8].set(5.0)
  offsets = set()
  for seed in range(40):
    view = inner_losses.draw_view(jax.random.key(seed), x)
    place = np.unravel_index(np.argmax(view[0]), (16, 16))
    offsets.add((int(place[0]) - 8, int(place[1]) - 8))
    rest = np.delete(np.ravel(view), np.argmax(view))
    assert 0.03 < rest.std() < 0.07
  assert max(map(max, offsets)) == 2 and min(map(min, offsets)) == -2


def test_the_critic_does_not_depend_on_the_order_of_classes():
  logits = jnp.asarray(np.random.default_rng(0).normal(size=(6, 4)))
  mask = jnp.ones(6)
  permuted = logits[:, jnp.array([2, 0, 3, 1])]
  np.testing.assert_allclose(
    inner_losses.critic_inputs(logits, mask),
    inner_losses.critic_inputs(permuted, mask),
    rtol=1e-5,
  )


def test_small_images_are_means_of_two_by_two_pixels():
  x = np.random.default_rng(0).normal(size=(2, 5, 4, 2))
  small = np.reshape(inner_losses.small_images(jnp.asarray(x)), (2, 2, 2, 2))
  for i, j in itertools.product(range(2), range(2)):
    square = x[:, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].mean(axis=(1, 2))
    np.testing.assert_allclose(small[:, i, j], square, rtol=1e-5, atol=1e-6)
