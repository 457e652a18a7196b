"""What `udl` measures on request, and what it may condition on."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hyperudl import core
from hyperudl.learners import udl
from hyperudl.learners.udl import evaluate as measuring
from tests.testing import tiny_sizes

WAY, SHOT, UNLABELLED = 3, 2, 2
BASE = {**tiny_sizes.TINY['udl'], 'phase': 'base'}


@functools.cache
def made(**changes):
  learner = udl.make(WAY, **{**BASE, **changes})
  return (
    learner,
    jax.jit(learner.evaluate),
    jax.jit(functools.partial(learner.adapt, train=False)),
  )


def episode():
  """Classes are told apart by their brightness."""
  rng = np.random.default_rng(3)
  y = np.array([*range(WAY)] * SHOT + [-1] * UNLABELLED)
  x = 0.1 * rng.random((len(y), 10, 10, 1)) + 0.3 * (y[:, None, None, None] + 1)
  query = np.arange(9) % WAY
  asked = 0.3 * (query[:, None, None, None] + 1) + 0.1 * rng.random(
    (9, 10, 10, 1)
  )
  as_examples = lambda x, y: core.Examples(jnp.asarray(x, jnp.float32), y)
  return core.Episode(
    as_examples(x, jnp.asarray(y)), as_examples(asked, jnp.asarray(query))
  )


def random_parameters(learner, seed=0):
  rng = np.random.default_rng(seed)
  shapes = jax.eval_shape(learner.init, jax.random.key(0), episode())
  return jax.tree.map(
    lambda leaf: jnp.asarray(0.3 * rng.normal(size=leaf.shape), jnp.float32),
    shapes,
  )


def test_a_bootstrapped_support_draws_rows_of_the_same_class():
  support = episode().support
  found = jax.vmap(lambda key: measuring.bootstrapped(support, key))(
    jax.random.split(jax.random.key(0), 40)
  )
  np.testing.assert_array_equal(found.y[0], support.y)
  unlabelled = support.y < 0
  np.testing.assert_array_equal(found.x[7][unlabelled], support.x[unlabelled])
  drawn = found.x[:, : WAY * SHOT]
  # A move and faint noise keep the mean of an image to .05 / 10 or so.
  mean = drawn.mean(axis=(2, 3, 4))
  own = support.x.mean(axis=(1, 2, 3))
  distance = jnp.abs(mean[:, :, None] - own[None, None])
  nearest = support.y[distance.argmin(axis=-1)]
  np.testing.assert_array_equal(
    nearest, jnp.broadcast_to(support.y[: WAY * SHOT], nearest.shape)
  )
  assert float(jnp.abs(found.x[0] - found.x[1]).max()) > 0


def test_extras_are_measured_on_request_alone():
  learner, evaluate, _ = made()
  params = random_parameters(learner)
  plain = evaluate(params, episode(), jax.random.key(0))
  assert not {'accuracy_ensemble', 'accuracy_finetuned'} & set(plain)
  _, evaluate, _ = made(ensemble=3, finetune_steps=2, finetune_rate=1e-7)
  found = evaluate(params, episode(), jax.random.key(0))
  assert found['accuracy'] == plain['accuracy']
  # Steps of no size leave the network what it was.
  assert found['accuracy_finetuned'] == plain['accuracy']
  assert 0 <= float(found['accuracy_ensemble']) <= 1


def test_an_ensemble_is_the_mean_of_its_networks():
  learner, evaluate, adapt = made(ensemble=3)
  data, params, key = episode(), random_parameters(learner), jax.random.key(4)
  probabilities = []
  for one in jax.random.split(key, 3):
    support = measuring.bootstrapped(data.support, one)
    task = adapt(params, support, one)
    logits = learner.predict(params, task, data.query.x, None)
    probabilities.append(jax.nn.softmax(logits))
  mean = np.mean(probabilities, axis=0)
  expected = np.mean(mean.argmax(-1) == np.asarray(data.query.y))
  found = evaluate(params, data, key)
  np.testing.assert_allclose(found['accuracy_ensemble'], expected, atol=1e-6)
  chosen = mean[np.arange(9), np.asarray(data.query.y)]
  np.testing.assert_allclose(
    found['nll_ensemble'], -np.log(chosen).mean(), rtol=1e-4
  )


def test_fine_tuning_fits_the_labelled_images():
  """Queries that are the support are answered better after the steps."""
  learner, evaluate, _ = made(
    finetune_steps=40, finetune_rate=0.01, norm='layer'
  )
  data, key = episode(), jax.random.key(0)
  rows = slice(0, WAY * SHOT)
  x, y = data.support.x[rows], data.support.y[rows]
  # Rows 0, 1, 2 and 3, 4, 5 show the same classes; name them otherwise.
  named = jnp.array([0, 1, 2, 1, 2, 0])
  support = data.support._replace(y=data.support.y.at[rows].set(named))
  data = data._replace(query=core.Examples(x, named), support=support)
  found = evaluate(learner.init(key, data), data, key)
  assert found['nll_finetuned'] < found['nll'] - 0.05
  assert (y != named).any()


@pytest.mark.parametrize('condition', ['pca', 'none'])
def test_what_does_not_condition_on_the_vae_does_not_depend_on_it(condition):
  learner, _, adapt = made(condition=condition)
  params, support = random_parameters(learner), episode().support
  other = {**params, 'frozen': random_parameters(learner, 1)['frozen']}
  task, again = (adapt(p, support, jax.random.key(0)) for p in (params, other))
  jax.tree.map(np.testing.assert_array_equal, task, again)
  usual, _, adapt = made()
  del usual
  task, again = (adapt(p, support, jax.random.key(0)) for p in (params, other))
  with pytest.raises(AssertionError):
    jax.tree.map(np.testing.assert_array_equal, task, again)


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({'condition': 'vae'}, "condition must be one of .* not 'vae'"),
    ({'ensemble': -1}, 'ensemble and finetune_steps must be >= 0'),
    ({'finetune_rate': 0.0}, 'finetune_rate must be > 0'),
    ({'setting': 'clusters', 'ensemble': 2}, 'clusters without any'),
  ],
)
def test_a_wrong_choice_is_refused(options, message):
  with pytest.raises(ValueError, match=message):
    udl.make(WAY, **{**BASE, **options})
