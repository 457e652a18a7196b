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
from tests.testing import udl as helper

ALL_SSL = '+'.join(inner_losses.SSL)
# Of a part of the adapted variable and an ELBO.
PAIRS = (
  ('film', 'features'),
  ('head', 'features'),
  ('transform', 'features'),
  ('encoder', 'images'),
)
OTHER_PAIRS = sorted(
  set(itertools.product(fast_weights.PARTS, ('features', 'images'))) - {*PAIRS}
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
      under_v = fast_weights.apply(config, params, network, support, v)
      read = inner_loop.read(config, params, under_v, inputs, v)
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
    ({'elbo': 'pixels'}, 'is none of none, features, images'),
    ({'critic': 'yes'}, 'is none of none, predictions'),
    (
      {'elbo': 'none', 'ssl': 'none', 'critic': 'none'},
      'no inner loss reaches',
    ),
    ({'elbo': 'images'}, "elbo = 'images' has no gradient"),
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
    {'adapt': 'encoder', 'elbo': 'images', 'ssl': 'none', 'critic': 'none'},
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
