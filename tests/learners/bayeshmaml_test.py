"""BayesHMAML: the posterior, its KL, and how far samples disagree."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from configs import bayeshmaml as bayeshmaml_config
from hyperudl import learners
from hyperudl.core import config as config_lib
from hyperudl.evaluation import calibration
from hyperudl.learners import bayeshmaml
from hyperudl.ops import losses
from tests.learners import hypermaml_test as helpers
from tests.testing import errors
from tests.testing import laws

LAWS = {
  'bayeshmaml': laws.Laws(
    slow='compiling and training it takes too long for every run'
  )
}


def built(**settings):
  learner = learners.make('bayeshmaml', 3, {**helpers.TINY, **settings})
  params = jax.jit(learner.init)(jax.random.key(1), helpers.episode_of())
  return learner, params


def adapted(learner, params, train, seed=0):
  adapt = jax.jit(functools.partial(learner.adapt, train=train))
  return adapt(params, helpers.episode_of().support, jax.random.key(seed))


def test_the_mean_is_the_head_of_hypermaml():
  learner, params = built(hidden=6)
  plain = learners.make('hypermaml', 3, helpers.TINY)
  # The same hypernetwork, without the half that generates variances.
  last = params['hypernetwork']['Dense_2']
  half = jax.tree.map(lambda leaf: leaf[..., : leaf.shape[-1] // 2], last)
  halved = {
    **params,
    'hypernetwork': {**params['hypernetwork'], 'Dense_2': half},
  }
  head = plain.adapt(halved, helpers.episode_of().support, None, train=False)
  mean = adapted(learner, params, train=False)
  for name, leaf in head['head'].items():
    np.testing.assert_allclose(mean['heads'][name][0], leaf, rtol=1e-4)


def test_samples_have_the_generated_mean_and_variance():
  mean = {'kernel': jnp.array([[1.0, -2.0]]), 'bias': jnp.array([0.5, 0.0])}
  log_variance = {
    'kernel': jnp.log(jnp.array([[0.25, 4.0]])),
    'bias': jnp.log(jnp.array([1.0, 0.01])),
  }
  heads = bayeshmaml.draw(jax.random.key(0), mean, log_variance, 20_000)
  for name in mean:
    sd = np.exp(0.5 * np.asarray(log_variance[name]))
    near = functools.partial(np.testing.assert_allclose, rtol=0.03)
    near(heads[name].std(axis=0), sd)
    gap = np.abs(heads[name].mean(axis=0) - mean[name]) / sd
    assert gap.max() < 0.03
  both = np.corrcoef(heads['kernel'][:, 0, 0], heads['bias'][:, 0])[0, 1]
  assert abs(both) < 0.03
  alone = bayeshmaml.draw(jax.random.key(0), mean, log_variance, 0)
  np.testing.assert_array_equal(alone['bias'], [[0.5, 0.0]])


def test_the_kl_is_that_of_an_integral():
  mean = {'kernel': jnp.array([[0.7]]), 'bias': jnp.array([-0.4])}
  log_variance = {'kernel': jnp.array([[-1.0]]), 'bias': jnp.array([0.3])}
  x = np.linspace(-15, 15, 200_001)
  total = 0.0
  for m, v in ((0.7, -1.0), (-0.4, 0.3)):
    log_q = -0.5 * ((x - m) ** 2 / np.exp(v) + v + np.log(2 * np.pi))
    log_p = -0.5 * (x**2 + np.log(2 * np.pi))
    total += np.trapezoid(np.exp(log_q) * (log_q - log_p), x)
  kl = bayeshmaml.kl_to_standard_normal(mean, log_variance)
  np.testing.assert_allclose(kl, total, rtol=1e-4)


def test_the_weight_of_the_kl_grows_geometrically():
  weight = lambda t: float(bayeshmaml.kl_weight(t, 1e-8, 1e-2, 100))
  np.testing.assert_allclose(weight(0), 1e-8, rtol=1e-4)
  np.testing.assert_allclose(weight(50), 1e-5, rtol=1e-4)
  np.testing.assert_allclose([weight(100), weight(500)], 1e-2, rtol=1e-4)


@pytest.mark.parametrize('average', ['logits', 'probabilities'])
def test_predictions_are_the_average_over_samples(average):
  learner, params = built(average=average, samples=4)
  task = adapted(learner, params, train=True)
  query = helpers.episode_of().query
  z = np.asarray(helpers.features_of(params, query.x))
  each = np.einsum('qd,sdn->sqn', z, task['heads']['kernel'])
  each = each + np.asarray(task['heads']['bias'])[:, None]
  logits = np.asarray(learner.predict(params, task, query.x, None))
  if average == 'logits':
    np.testing.assert_allclose(logits, each.mean(0), rtol=1e-3, atol=1e-4)
  else:
    p = special.softmax(each, axis=-1).mean(0)
    np.testing.assert_allclose(np.exp(logits), p, rtol=1e-3, atol=1e-5)


def test_the_mean_can_be_fine_tuned_like_the_head_of_hypermaml():
  settings = {'finetune_steps': 20, 'finetune_rate': 1e-2}
  learner, params = built(**settings)
  support = helpers.episode_of().support
  fit = lambda task: float(
    losses.cross_entropy(
      learner.predict(None, task, support.x, None), support.y
    )
  )
  plain, _ = built()
  before, after = (adapted(each, params, False) for each in (plain, learner))
  assert fit(after) < fit(before)
  jax.tree.map(np.testing.assert_array_equal, before['trunk'], params['trunk'])
  assert after['heads']['bias'].shape == (1, 3)  # the mean alone


def test_the_loss_is_fit_and_weighted_kl():
  learner, params = built(kl_start=1e-3, kl_stop=1e-3)
  value, grads, metrics = helpers.value_and_grad(learner, params)
  free, _ = built(kl_start=1e-30, kl_stop=1e-30)
  fit = helpers.value_and_grad(free, params)[0]
  np.testing.assert_allclose(value - fit, 1e-3 * metrics['kl'], rtol=1e-3)
  leaves = jax.tree.leaves(grads)
  assert all(float(jnp.abs(leaf).max()) > 0 for leaf in leaves)


def test_the_gradient_steps_of_the_warm_up_can_count_the_kl():
  settings = {'warmup_steps': 1, 'inner_steps': 1, 'kl_steps': 1}
  settings |= {'kl_start': 0.5, 'kl_stop': 0.5}
  plain, params = built(**settings)
  counted, _ = built(**settings, kl_inner=True)
  params['hypernetwork']['Dense_2']['kernel'] *= 0  # a fixed variance
  kls = [
    helpers.value_and_grad(learner, params)[2]['kl']
    for learner in (plain, counted)
  ]
  # One step of .5 with the gradient of .5 KL, .5 theta: theta' - .25 theta.
  support = helpers.episode_of().support
  z = helpers.features_of(params, support.x)
  fit = lambda head: losses.cross_entropy(helpers.linear(head, z), support.y)
  head, grads = params['head'], jax.grad(fit)(params['head'])
  squares = lambda keep: sum(
    float(jnp.sum(jnp.square(keep * head[k] - 0.5 * grads[k]))) for k in head
  )
  np.testing.assert_allclose(
    kls[0] - kls[1], 0.5 * (squares(1.0) - squares(0.75)), rtol=1e-3
  )


def test_the_loss_can_count_the_squares_of_delta():
  plain, params = built()
  weighted, _ = built(delta_weight=0.1)
  mean = adapted(plain, params, train=False)['heads']
  gaps = [mean[name][0] - params['head'][name] for name in mean]
  size = sum(float(jnp.sum(jnp.square(gap))) for gap in gaps)
  value, more = (
    helpers.value_and_grad(learner, params)[0] for learner in (plain, weighted)
  )
  np.testing.assert_allclose(more - value, 0.1 * size, rtol=1e-3)


def test_disagreement_of_samples_is_measured():
  learner, params = built(test_samples=6, average='probabilities')
  episode = helpers.episode_of()
  key = jax.random.key(3)
  metrics = jax.jit(learner.evaluate)(params, episode, key)
  task = jax.jit(functools.partial(learner.adapt, train=False))(
    params, episode.support, key
  )
  z = np.asarray(helpers.features_of(params, episode.query.x))
  each = np.einsum('qd,sdn->sqn', z, task['heads']['kernel'])
  each = each + np.asarray(task['heads']['bias'])[:, None]
  samples = special.softmax(each, axis=-1)
  y = np.asarray(episode.query.y)
  near = functools.partial(np.testing.assert_allclose, rtol=2e-3, atol=1e-5)
  near(
    metrics['mutual_information'],
    calibration.mutual_information(samples).mean(),
  )
  near(metrics['entropy'], calibration.entropy(samples.mean(0)).mean())
  near(metrics['brier'], calibration.brier(samples.mean(0), y))
  near(metrics['nll'], calibration.nll(samples.mean(0), y))
  mean, _ = built()
  alone = jax.jit(mean.evaluate)(params, episode, key)
  assert abs(float(alone['mutual_information'])) < 1e-5


@pytest.mark.parametrize(
  'settings, message',
  [
    ({'average': 'median'}, 'none of logits, probabilities'),
    ({'samples': 0}, 'samples = 0 is below its minimum 1'),
    ({'kl_start': 0.0}, 'kl_start = 0.0 must be above 0'),
    ({'finetune_steps': -3}, 'finetune_steps = -3 is below its minimum 0'),
    ({'layers': 1}, 'layers = 1 is below its minimum 2'),
  ],
  ids=str,
)
def test_wrong_settings_are_refused(settings, message):
  assert message in errors.refusal(
    learners.make, 'bayeshmaml', 3, {**helpers.TINY, **settings}
  )


@pytest.mark.parametrize(
  'arg, stop',
  [
    (None, 1e-3),
    ('omniglot,shot=5', 1e-3),
    ('miniimagenet,shot=1', 1e-4),
    ('miniimagenet,shot=5', 1e-5),
  ],
)
def test_configs_are_the_published_ones(arg, stop):
  config = bayeshmaml_config.get_config(arg)
  config_lib.validate(config)
  assert config.learner.kl_stop == stop
  learners.make('bayeshmaml', 5, config_lib.learner_settings(config))
