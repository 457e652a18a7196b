"""The encoder of weights that matches questions, and guidance by it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from hyperudl import core
from hyperudl.learners._language import hypernetwork
from hyperudl.ops import losses
from tests.testing import by_hand
from tests.testing import errors
from tests.testing import guidance
from tests.testing import laws

LAWS = {
  'hyperclip': laws.Laws(
    slow='compiling and training it takes too long for every run',
    untrained='its upstreams are random here; see the tests of this file',
    unjudged='it retrieves among tasks; their probabilities are left out',
    tasks=2,
    reason='its contrastive loss is over several tasks',
  )
}

TASKS = guidance.TASKS


@pytest.mark.slow
def test_the_encoder_of_weights_retrieves_their_question():
  _, params, metrics = guidance.trained('hyperclip')
  assert metrics['retrieval'] > 0.9  # chance is 1/8
  learner = guidance.make('hyperclip', guidance_steps=100, guidance_rate=0.1)
  batch = guidance.batch_of('hyperclip', train=False)
  evaluate = lambda e: learner.evaluate(params, e, jax.random.key(0))
  metrics = jax.jit(jax.vmap(evaluate))(batch)
  assert (metrics['likeness'] > metrics['likeness_start'] + 0.1).all()
  # The same, all tasks in one episode.
  group = evaluate(batch)
  np.testing.assert_allclose(
    group['likeness'], metrics['likeness'].mean(), atol=1e-4
  )
  assert 0 <= float(group['retrieval']) <= 1
  np.testing.assert_allclose(group['retrieval_chance'], 1 / TASKS)
  same = batch._replace(extra={**batch.extra, 'group': jnp.zeros(TASKS)})
  group = evaluate(same)
  assert group['retrieval'] == group['retrieval_chance'] == 1


def unit(v):
  return np.asarray(v / np.linalg.norm(v))


@pytest.mark.slow
def test_the_contrast_counts_other_wordings_as_correct():
  """The loss and the retrieval, in NumPy."""
  learner = guidance.make('hyperclip', encoder=(16,), noise=0.0)
  batch = guidance.batch_of('hyperclip')
  group = np.array([0, 0, 1, 2, 2, 2, 3, 4])
  batch = batch._replace(extra={**batch.extra, 'group': jnp.asarray(group)})
  params = learner.init(jax.random.key(0), guidance.first(batch))
  key = jax.random.key(1)
  _, metrics = learner.loss(params, batch, key, 0)
  distinct = batch._replace(extra={**batch.extra, 'group': jnp.arange(TASKS)})
  _, other = learner.loss(params, distinct, key, 0)
  assert other['contrast'] != metrics['contrast']
  layers = jax.tree.map(np.asarray, params['encoder'])
  base = guidance.flatten(params['frozen']['hypernet']['decoder']['base'])
  codes = batch.extra['task'] @ guidance.codes_of(params)
  deviations = guidance.weights_of(params, codes) - base
  f, g = [], []
  for i in range(TASKS):
    h = deviations[i] @ layers[0]['kernel'] + layers[0]['bias']
    h = h / (1 + np.exp(-h))  # SiLU
    f.append(unit(h @ layers[1]['kernel'] + layers[1]['bias']))
    one = jax.tree.map(lambda leaf, i=i: leaf[i], batch)
    net = hypernetwork.unfreeze(guidance.NET, params)
    words = net.encoder.embed_words(one.support.context)
    g.append(unit(words.question))
  logits = 20.0 * np.array(f) @ np.array(g).T
  total = 0.0
  for table in (logits, logits.T):
    log_p = table - np.log(np.exp(table).sum(axis=1, keepdims=True))
    for i in range(TASKS):
      total -= log_p[i, group == group[i]].mean() / TASKS
  np.testing.assert_allclose(metrics['contrast'], total, rtol=1e-4)
  hits = group[logits.argmax(axis=1)] == group
  np.testing.assert_allclose(metrics['retrieval'], np.mean(hits))


def embeddings_by_hand(params, latents):
  """f64[n, E], unit embeddings of the weights that latents decode to."""
  deviations = guidance.deviations_by_hand(params, latents)
  scaled = deviations / np.exp(params['spread']['log'])
  return by_hand.unit(by_hand.silu_perceptron(params['encoder'], scaled))


def questions_of(params, batch):
  """f64[T, E], the unit embeddings of the questions of the tasks."""
  net = hypernetwork.unfreeze(guidance.NET, params)
  embed = lambda context: net.encoder.embed_words(context).question
  return by_hand.unit(jax.vmap(embed)(batch.support.context))


@functools.cache
def case():
  """(learner, random parameters, one episode of all tasks, its metrics)."""
  learner = guidance.make('hyperclip', guidance_rate=0.3, inner_rate=0.5)
  batch = guidance.batch_of('hyperclip', train=False)
  group = jnp.array([0, 0, 1, 2, 2, 2, 3, 4])
  batch = batch._replace(extra={**batch.extra, 'group': group})
  params = guidance.random_params(learner, guidance.first(batch))
  evaluate = jax.jit(learner.evaluate)
  return learner, params, batch, evaluate(params, batch, jax.random.key(0))


@functools.cache
def predict(part):
  """Latents f32[T, Z] -> logits [T, n, N] of the tasks' support or queries."""
  learner, params, batch, _ = case()
  task = learner.adapt(params, batch.support, jax.random.key(0), train=False)
  x = getattr(batch, part).x

  def run(latents):
    fast = hypernetwork.FastWeights(latents)
    network = task.network._replace(fast=fast)
    return learner.predict(params, task._replace(network=network), x, None)

  return task.latent, jax.jit(jax.vmap(run))


def test_likeness_distance_and_accuracies_by_hand():
  _, params, batch, metrics = case()
  start = np.asarray(params['frozen']['hypernet']['start'])
  latents, run = predict('query')
  questions = questions_of(params, batch)
  likeness = lambda z: (embeddings_by_hand(params, z) * questions).sum(-1)
  starts = np.tile(start, (TASKS, 1))
  guided, initial = np.asarray(run(jnp.stack([latents, starts])))
  y = batch.query.y
  expected = {
    'likeness': likeness(latents).mean(),
    'likeness_start': likeness(starts).mean(),
    'distance': np.linalg.norm(latents - start, axis=1).mean(),
    'accuracy': by_hand.accuracy(guided, y),
    'accuracy_start': by_hand.accuracy(initial, y),
  }
  for name, value in expected.items():
    np.testing.assert_allclose(metrics[name], value, rtol=1e-3, err_msg=name)
  assert expected['accuracy'] != expected['accuracy_start']


def test_the_gradients_are_compared_as_finite_differences_are():
  """Of the labels' loss and of minus the likeness, at the start."""
  _, params, batch, metrics = case()
  start = np.asarray(params['frozen']['hypernet']['start'])
  step = 1e-2 * np.eye(len(start))
  points = np.concatenate([start + step, start - step])
  _, run = predict('support')
  logits = np.asarray(run(jnp.tile(points[:, None], (1, TASKS, 1))))
  questions, f = questions_of(params, batch), embeddings_by_hand(params, points)
  cosines = []
  for i, y in enumerate(batch.support.y):
    values = np.array([by_hand.cross_entropy(each[i], y) for each in logits])
    slopes = [values[: len(start)] - values[len(start) :]]
    values = -f @ questions[i]
    slopes += [values[: len(start)] - values[len(start) :]]
    cosines.append(np.prod(by_hand.unit(np.stack(slopes)), axis=0).sum())
  np.testing.assert_allclose(
    metrics['gradient_cosine'], np.mean(cosines), atol=2e-3
  )
  assert abs(np.mean(cosines)) > 0.02


def test_retrieval_is_that_of_networks_adapted_to_all_images():
  _, params, batch, metrics = case()
  group = np.asarray(batch.extra['group'])
  support, query = batch.support, batch.query
  images = support._replace(
    x=jnp.concatenate([support.x, query.x], axis=1),
    y=jnp.concatenate([support.y, query.y], axis=1),
  )
  hypernet, own = guidance.hypernet_of(params, inner_rate=0.5)
  questions = questions_of(params, batch)

  def rate(support):
    latents = guidance.adapt_all(hypernet, own, support).fast.latent
    best = (embeddings_by_hand(params, latents) @ questions.T).argmax(axis=1)
    return np.mean(group[best] == group)

  np.testing.assert_allclose(metrics['retrieval'], rate(images))
  # Questions with 2, 1, 3, 1 and 1 tasks.
  np.testing.assert_allclose(metrics['retrieval_chance'], 16 / TASKS**2)


def test_a_penalty_keeps_the_latent_near_its_initial_value():
  _, params, _ = guidance.trained('hyperclip')
  distances = []
  for penalty in (0.0, 100.0):
    learner = guidance.make(
      'hyperclip',
      guidance_steps=30,
      guidance_penalty=penalty,
      guidance_schedule='cosine',
    )
    support = guidance.first(guidance.supports())
    task = learner.adapt(params, support, jax.random.key(0), train=False)
    start = params['frozen']['hypernet']['start']
    distances.append(float(jnp.linalg.norm(task.latent - start)))
  assert distances[1] < 0.2 * distances[0]


def random_task():
  """(parameters, episode of one task, its question, likeness of a latent)."""
  episode = guidance.first(guidance.batch_of('hyperclip'))
  learner = guidance.make('hyperclip')
  params = jax.jit(learner.init)(jax.random.key(0), episode)
  params['spread'] = {'log': jnp.float32(0.7)}
  net = hypernetwork.unfreeze(guidance.NET, params)
  words = net.encoder.embed_words(episode.support.context)
  question = unit(words.question)
  base = guidance.flatten(params['frozen']['hypernet']['decoder']['base'])
  first, last = params['encoder']

  def likeness(latent):
    h = guidance.weights_of(params, latent[None])[0] - base
    h = h / jnp.exp(0.7) @ first['kernel'] + first['bias']
    f = jax.nn.silu(h) @ last['kernel'] + last['bias']
    return f @ question / jnp.linalg.norm(f)

  return params, episode, words, likeness


@pytest.mark.parametrize('penalty, langevin', [(0.5, 0.0), (0.0, 0.3)])
def test_guidance_equals_a_plain_loop(penalty, langevin):
  params, episode, _, likeness = random_task()
  learner = guidance.make(
    'hyperclip',
    guidance_steps=4,
    guidance_rate=0.1,
    guidance_penalty=penalty,
    langevin=langevin,
  )
  key = jax.random.key(3)
  task = learner.adapt(params, episode.support, key, train=False)
  start = params['frozen']['hypernet']['start']
  latent, optimizer = start, optax.adam(0.1)
  state = optimizer.init(latent)
  gradient = jax.jit(jax.grad(likeness))
  for step in range(4):
    noise = jax.random.normal(jax.random.fold_in(key, step), latent.shape)
    pull = penalty * (latent - start)  # of penalty / 2 |z - z_0|^2
    direction = -gradient(latent) + pull + langevin * noise
    updates, state = optimizer.update(direction, state)
    latent = latent + updates
  np.testing.assert_allclose(task.latent, latent, rtol=1e-3, atol=1e-4)
  assert float(jnp.abs(latent - start).max()) > 0.1


@pytest.mark.slow
def test_the_cosine_of_gradients_is_of_the_losses_of_labels_and_guidance():
  params, episode, words, likeness = random_task()
  learner = guidance.make('hyperclip', guidance_steps=0)
  metrics = learner.evaluate(params, episode, jax.random.key(0))
  net = hypernetwork.unfreeze(guidance.NET, params)
  support = episode.support

  def fit(latent):
    task = hypernetwork.Task(hypernetwork.FastWeights(latent), words)
    return losses.cross_entropy(net.logits(task, support.x), support.y)

  start = params['frozen']['hypernet']['start']
  expected = unit(jax.grad(fit)(start)) @ unit(-jax.grad(likeness)(start))
  assert abs(expected) > 0.01
  np.testing.assert_allclose(metrics['gradient_cosine'], expected, rtol=1e-2)


def test_a_contrast_needs_several_tasks():
  learner, params, _ = guidance.trained('hyperclip')
  episode = guidance.first(guidance.batch_of('hyperclip'))
  with pytest.raises(ValueError, match=r'episode\.tasks >= 2'):
    learner.loss(params, episode, jax.random.key(0), 0)


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({'guidance_rate': 0.0}, 'guidance_rate = 0.0 must be above 0'),
    ({'guidance_schedule': 'up'}, "guidance_schedule = 'up' is none of"),
    ({'encoder': (8, 0)}, 'encoder = (8, 0) is below its minimum 1'),
  ],
)
def test_a_wrong_setting_is_refused(options, message):
  refused = errors.refusal(
    guidance.make, 'hyperclip', error=core.BadInput, **options
  )
  assert message in refused
