"""Diffusion over latents that is guided by a question."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hyperudl import core
from hyperudl.data import episodes
from hyperudl.data.language import task_set
from hyperudl.learners import hyperldm
from hyperudl.learners._language import hypernetwork
from hyperudl.learners._language import latent_diffusion
from hyperudl.learners._language import latent_space
from hyperudl.ops import losses
from hyperudl.training import train_step
from tests.testing import by_hand
from tests.testing import errors
from tests.testing import example
from tests.testing import guidance
from tests.testing import laws

LAWS = {
  'hyperldm': laws.Laws(
    slow='compiling and training it takes too long for every run',
    untrained='its upstreams are random here; see the tests of this file',
  )
}

TASKS = guidance.TASKS


def adapt_all(learner, params, key):
  adapt = lambda support, key: learner.adapt(params, support, key, train=False)
  keys = jax.random.split(key, TASKS)
  return jax.jit(jax.vmap(adapt))(guidance.supports(), keys)


@pytest.mark.parametrize('gamma', [0.0, 1.0])
@pytest.mark.slow
def test_the_latent_of_the_asked_task_is_sampled(gamma):
  _, params, _ = guidance.trained('hyperldm')
  learner = guidance.make('hyperldm', gamma=gamma)
  hits = []
  for seed in range(3):
    task = adapt_all(learner, params, jax.random.key(seed))
    latents = task.fast.latent[:, 0]
    tasks = guidance.nearest(latents, guidance.codes_of(params))
    hits.append(tasks == jnp.arange(TASKS))
  rate = float(jnp.mean(jnp.stack(hits)))
  # Chance is 1/8; without the question it cannot be more.
  assert rate > 0.8 if gamma else rate < 0.45


@pytest.mark.parametrize('space', ['hnet', 'hvae'])
def test_latents_of_a_space_decode_to_networks_of_one_shape(space):
  config = hyperldm.Config(
    guidance.WAY,
    space=space,
    **guidance.SIZES,
    **guidance.SETTINGS['hyperldm'],
  )
  key, episode = (
    jax.random.key(0),
    guidance.first(guidance.batch_of('hyperldm')),
  )
  frozen = latent_space.init_frozen(config, key, episode)
  latents = latent_space.LatentSpace(config, {'frozen': frozen})
  for latent in (
    latents.initial_latent(episode.support.context),
    latents.task_latent(episode),
  ):
    assert latent.shape == ({'hnet': 6, 'hvae': 5}[space],)
    weights = latents.net.weights_of(latents.decode(latent))
    jax.tree.map(
      lambda leaf, base: np.testing.assert_equal(leaf.shape, base.shape),
      weights,
      latents.net.base,
    )


def test_the_moments_of_the_latents_are_learned():
  _, params, _ = guidance.trained('hyperldm')
  codes, moments = guidance.codes_of(params), params['moments']
  np.testing.assert_allclose(moments['mean'], codes.mean(0), atol=0.1)
  std = jnp.exp(moments['log_std'])
  np.testing.assert_allclose(std, codes.std(0), rtol=0.1)


@pytest.mark.slow
def test_several_samples_are_averaged_and_no_label_is_read():
  _, params, _ = guidance.trained('hyperldm')
  learner = guidance.make('hyperldm', samples=3)
  support, key = guidance.first(guidance.supports()), jax.random.key(2)
  task = learner.adapt(params, support, key, train=False)
  logits = learner.predict(params, task, support.x, None)
  singles = [
    learner.predict(
      params,
      task._replace(fast=jax.tree.map(lambda v: v[i : i + 1], task.fast)),
      support.x,
      None,
    )
    for i in range(3)
  ]
  mean = np.mean([np.exp(logits) for logits in singles], axis=0)
  np.testing.assert_allclose(np.exp(logits), mean, rtol=1e-4, atol=1e-6)
  relabelled = support._replace(y=(support.y + 1) % guidance.WAY)
  again = learner.adapt(params, relabelled, key, train=False)
  jax.tree.map(np.testing.assert_array_equal, task, again)


@pytest.mark.parametrize(
  'options', [{'few_shot_gamma': 0.5}, {'finetune_steps': 4}]
)
def test_labels_lower_the_support_loss_where_they_are_used(options):
  _, params, _ = guidance.trained('hyperldm')
  plain = guidance.make('hyperldm', gamma=0.0)
  few_shot = guidance.make('hyperldm', inner_rate=0.3, gamma=0.0, **options)

  def support_loss(learner):
    def one(support, key):
      task = learner.adapt(params, support, key, train=False)
      logits = learner.predict(params, task, support.x, None)
      return losses.cross_entropy(logits, support.y)

    keys = jax.random.split(jax.random.key(0), TASKS)
    return float(jax.jit(jax.vmap(one))(guidance.supports(), keys).mean())

  assert support_loss(few_shot) < support_loss(plain) - 0.01


def test_the_start_is_measured_as_a_network_that_nothing_was_sampled_for():
  learner = guidance.make('hyperldm', samples=2)
  batch = guidance.batch_of('hyperldm', train=False)
  params = guidance.random_params(learner, guidance.first(batch))
  keys = jax.random.split(jax.random.key(0), TASKS)
  evaluate = lambda e, key: learner.evaluate(params, e, key)
  metrics = jax.jit(jax.vmap(evaluate))(batch, keys)
  adapt = lambda s, key: learner.adapt(params, s, key, train=False)
  task = jax.jit(jax.vmap(adapt))(batch.support, keys)
  start = jnp.tile(params['frozen']['hypernet']['start'], (TASKS, 1, 1))
  unadapted = task._replace(fast=hypernetwork.FastWeights(start))
  for suffix, each in (('', task), ('_start', unadapted)):
    logits = guidance.logits_of(learner, params, each, batch.query.x)
    expected = [by_hand.accuracy(*pair) for pair in zip(logits, batch.query.y)]
    np.testing.assert_allclose(metrics[f'accuracy{suffix}'], expected)
  assert (metrics['accuracy'] != metrics['accuracy_start']).any()


def test_fine_tuning_starts_from_the_sample():
  """One step of gradient descent, by finite differences."""
  rate = 0.4
  plain = guidance.make('hyperldm')
  tuned = guidance.make(
    'hyperldm', finetune_steps=1, inner_optimizer='sgd', inner_rate=rate
  )
  batch = guidance.batch_of('hyperldm', train=False)
  params = guidance.random_params(plain, guidance.first(batch))
  key, support = jax.random.key(0), guidance.first(batch).support
  adapt = lambda learner: jax.jit(
    lambda s: learner.adapt(params, s, key, train=False)
  )(support)
  task, after = adapt(plain), adapt(tuned).fast.latent[0]
  before = np.asarray(task.fast.latent[0])
  step = 1e-2 * np.eye(len(before))

  @jax.jit
  @jax.vmap
  def logits(latent):
    network = task._replace(fast=hypernetwork.FastWeights(latent[None]))
    return plain.predict(params, network, support.x, None)

  above, below = [
    np.array([by_hand.cross_entropy(each, support.y) for each in logits(z)])
    for z in (before + step, before - step)
  ]
  slope = (above - below) / 2e-2
  np.testing.assert_allclose(after, before - rate * slope, atol=2e-3)
  assert np.abs(rate * slope).max() > 0.02


@pytest.mark.slow
def test_diffusion_works_in_the_space_of_the_vae():
  learner, params, _ = guidance.trained('hyperldm', space='hvae')
  task = adapt_all(learner, params, jax.random.key(0))
  assert task.fast.latent is None
  sampled = jax.vmap(guidance.flatten)(
    jax.tree.map(lambda leaf: leaf[:, 0], task.fast.weights)
  )
  weights = guidance.weights_of(params, guidance.codes_of(params))
  hits = guidance.nearest(sampled, weights) == jnp.arange(TASKS)
  assert float(hits.mean()) > 0.6


def test_latents_from_disk_reach_the_learner(tmp_path):
  tasks = example.example_tasks(0)
  latents = np.arange(3 * TASKS * 6, dtype=np.float32).reshape(3, TASKS, 6)
  path = tmp_path / 'latents.npz'
  np.savez(path, latents=latents[:, ::-1], ids=tasks.ids[::-1])
  draw = episodes.make_draw(
    guidance.config_of('hyperldm'),
    task_set.with_latents(tasks, path),
    train=True,
  )
  episode = draw(episodes.train_keys(0, 0, 30), np.arange(30))
  for i in range(30):
    of_task = latents[:, i % TASKS]
    assert (of_task == episode.extra['latent'][i]).all(axis=1).any()
  copies = np.unique(np.asarray(episode.extra['latent'])[:, 0] // (TASKS * 6))
  assert len(copies) == 3
  learner, params, _ = guidance.trained('hyperldm')
  loss, _ = learner.loss(params, guidance.first(episode), jax.random.key(0), 0)
  assert jnp.isfinite(loss)
  np.savez(path, latents=latents[:, 1:], ids=tasks.ids[1:])
  message = errors.refusal(task_set.with_latents, tasks, path)
  assert 'lack 1 of 8 tasks' in message
  message = errors.refusal(task_set.with_latents, tasks, tmp_path / 'none.npz')
  assert 'no latents' in message


def test_the_moving_average_follows_quickly_at_first_and_slowly_later():
  params = {
    'a': jnp.ones(2),
    'frozen': {'ema': {'a': jnp.zeros(2), 'decay': jnp.asarray(0.5)}},
  }
  for step, expected in ((0, 0.9), (1, 1 - 0.1 * 2 / 11)):
    params = train_step.update_ema(params, step)
    np.testing.assert_allclose(
      params['frozen']['ema']['a'], expected, rtol=1e-5
    )
  ema = {**params['frozen']['ema'], 'a': jnp.zeros(2)}
  late = train_step.update_ema({**params, 'frozen': {'ema': ema}}, 10_000)
  np.testing.assert_allclose(late['frozen']['ema']['a'], 0.5)


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({'schedule': 'square'}, "schedule = 'square' is none of cosine, linear"),
    ({'sampler_steps': 200}, 'sampler_steps = 200 is above timesteps = 40'),
    ({'drop_rate': 1.5}, 'drop_rate = 1.5 is above its maximum 1'),
    ({'space': 'pixels'}, "space = 'pixels' is none of hnet, hvae"),
    ({'kind': 'multitask'}, 'has no latent for each task'),
  ],
)
def test_a_wrong_setting_is_refused(options, message):
  refused = errors.refusal(
    guidance.make, 'hyperldm', error=core.BadInput, **options
  )
  assert message in refused


def test_the_sampler_takes_no_more_steps_than_the_diffusion_has():
  latent_diffusion.Config(timesteps=40, sampler_steps=40)
  message = errors.refusal(
    latent_diffusion.Config, timesteps=40, sampler_steps=41
  )
  assert message == 'sampler_steps = 41 is above timesteps = 40'
