"""Guidance: networks from a question by diffusion or by gradient steps."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import hvae as hvae_config
from configs import hyperclip as clip_config
from configs import hyperldm as ldm_config
from hyperudl import core
from hyperudl.data import episodes
from hyperudl.data.language import task_set
from hyperudl.learners import hvae
from hyperudl.learners import hyperclip
from hyperudl.learners import hyperldm
from hyperudl.learners import hypernet
from hyperudl.learners._language import hypernetwork
from hyperudl.learners._language import latent_space
from hyperudl.nets import mlp
from hyperudl.ops import losses
from hyperudl.training import optimizers
from hyperudl.training import train_step
from tests.testing import example
from tests.testing import tiny_sizes

WAY, TASKS = 3, 8
SIZES = {
  **tiny_sizes.HVAE,
  'latent': 6,
  'hvae_latent': 5,
  # Questions must be far apart where nothing has trained their encoder.
  'width': 36,
  'inner_width': 32,
}
LDM = {'denoiser': (64, 64), 'timesteps': 40, 'sampler_steps': 40, 'ema': 0.98}
MODULES = {
  'hyperldm': (hyperldm, ldm_config, LDM),
  'hyperclip': (hyperclip, clip_config, {'encoder': (32,), 'noise': 0.1}),
  'hvae': (hvae, hvae_config, {'hvae_hidden': (64,)}),
}


def batch_of(config, numbers=None, train=True):
  config = config.copy_and_resolve_references().unlock()
  config.episode.update({'way': WAY, 'shot': 2, 'query': 2})
  draw = episodes.make_draw(config, example.example_tasks(0), train=train)
  count = TASKS if numbers is None else len(numbers)
  keys = episodes.train_keys(0, 0, count)
  return draw(keys, numbers)


@functools.cache
def trained(name, steps=700, space='hnet'):
  """(learner, parameters, last metrics) on codes that are far apart."""
  module, config, own = MODULES[name]
  settings = {**SIZES, **own}
  if name != 'hvae':
    settings['space'] = space
  learner = module.make(WAY, **settings)
  config = config.get_config().unlock()
  config.episode.tasks = 0
  copies = 1 if name == 'hyperclip' else 8
  batch = batch_of(config, np.arange(copies * TASKS))
  if name == 'hyperclip':  # one episode of all tasks
    batch = jax.tree.map(lambda leaf: leaf[None], batch)
  episode = jax.tree.map(lambda leaf: leaf[0], batch)
  config.optimizer.learning_rate = 0.01
  optimizer = optimizers.make_optimizer(config.optimizer, steps)
  state = train_step.init_state(learner, optimizer, jax.random.key(0), episode)
  codes = 0.5 * jax.random.normal(jax.random.key(5), (TASKS, SIZES['latent']))
  frozen = dict(state.params['frozen'])
  frozen['hypernet'] = {**frozen['hypernet'], 'codes': codes}
  if space == 'hvae':
    upstream = trained('hvae')[1]
    frozen['hvae'] = {k: v for k, v in upstream.items() if k != 'frozen'}
    frozen['hypernet'] = upstream['frozen']['hypernet']
    frozen['contrastive'] = upstream['frozen']['contrastive']
  state = state._replace(params={**state.params, 'frozen': frozen})
  step = train_step.make_train_step(learner, optimizer, 'vmap')
  for t in range(steps):
    keys = episodes.train_keys(1, t, len(batch.support.y))
    state, metrics = step(state, batch, keys)
  return learner, state.params, jax.device_get(metrics)


def supports():
  config = ldm_config.get_config().unlock()
  return batch_of(config, np.arange(TASKS), train=False).support


def flat(weights):
  return jnp.concatenate([w.ravel() for w in jax.tree.leaves(weights)])


def nearest_codes(params, points, codes=None):
  codes = params['frozen']['hypernet']['codes'] if codes is None else codes
  apart = jnp.linalg.norm(points[:, None] - codes[None], axis=-1)
  return apart.argmin(axis=1)


SLOW = pytest.mark.slow


@pytest.mark.parametrize('gamma', [pytest.param(0.0, marks=SLOW), 1.0])
def test_diffusion_finds_the_network_that_the_question_means(gamma):
  _, params, _ = trained('hyperldm')
  learner = hyperldm.make(WAY, **SIZES, **LDM, gamma=gamma)
  adapt = jax.jit(
    jax.vmap(lambda s, k: learner.adapt(params, s, k, train=False))
  )
  hits = []
  for seed in range(3):
    keys = jax.random.split(jax.random.key(seed), TASKS)
    z = adapt(supports(), keys)['value']['z'][:, 0]
    hits.append(nearest_codes(params, z) == jnp.arange(TASKS))
  share = float(jnp.mean(jnp.stack(hits)))
  # Chance is 1/8; without the question it cannot be more.
  assert share > 0.8 if gamma else share < 0.45


def test_the_moments_of_the_latents_are_found():
  _, params, _ = trained('hyperldm')
  codes = params['frozen']['hypernet']['codes']
  np.testing.assert_allclose(params['moments']['mean'], codes.mean(0), atol=0.1)
  spread = jnp.exp(params['moments']['log_std'])
  np.testing.assert_allclose(spread, codes.std(0), rtol=0.1)


def test_several_samples_are_averaged_and_no_label_is_read():
  _, params, _ = trained('hyperldm')
  learner = hyperldm.make(WAY, **SIZES, **LDM, samples=3)
  support = jax.tree.map(lambda leaf: leaf[0], supports())
  key = jax.random.key(2)
  task = learner.adapt(params, support, key, train=False)
  logits = learner.predict(params, task, support.x, None)
  singles = [
    learner.predict(
      params,
      {**task, 'value': jax.tree.map(lambda v: v[i : i + 1], task['value'])},
      support.x,
      None,
    )
    for i in range(3)
  ]
  mean = np.mean([np.exp(logits) for logits in singles], axis=0)
  np.testing.assert_allclose(np.exp(logits), mean, rtol=1e-4, atol=1e-6)
  blind = support._replace(y=(support.y + 1) % WAY)
  again = learner.adapt(params, blind, key, train=False)
  jax.tree.map(np.testing.assert_array_equal, task, again)


@pytest.mark.parametrize(
  'options', [{'few_shot_gamma': 0.5}, {'finetune_steps': 4}]
)
def test_few_labels_help_where_they_are_asked_for(options):
  _, params, _ = trained('hyperldm')
  plain = hyperldm.make(WAY, **SIZES, **LDM, gamma=0.0)
  few = hyperldm.make(
    WAY, **{**SIZES, 'inner_rate': 0.3}, **LDM, gamma=0.0, **options
  )

  def support_loss(learner):
    def one(support, key):
      task = learner.adapt(params, support, key, train=False)
      logits = learner.predict(params, task, support.x, None)
      return losses.cross_entropy(logits, support.y)

    keys = jax.random.split(jax.random.key(0), TASKS)
    return float(jax.jit(jax.vmap(one))(supports(), keys).mean())

  assert support_loss(few) < support_loss(plain) - 0.01


def test_the_encoder_of_weights_finds_their_question():
  _, params, metrics = trained('hyperclip')
  assert metrics['retrieval'] > 0.9  # chance is 1/8
  learner = hyperclip.make(
    WAY,
    **SIZES,
    **MODULES['hyperclip'][2],
    guidance_steps=100,
    guidance_rate=0.1,
  )
  config = clip_config.get_config().unlock()
  config.episode.tasks = 0
  batch = batch_of(config, np.arange(TASKS), train=False)
  found = jax.jit(
    jax.vmap(lambda e: learner.evaluate(params, e, jax.random.key(0)))
  )(batch)
  assert (found['likeness'] > found['likeness_start'] + 0.1).all()
  # The same, all tasks in one episode; fine-tuned weights find their question.
  group = learner.evaluate(params, batch, jax.random.key(0))
  np.testing.assert_allclose(
    group['likeness'], found['likeness'].mean(), atol=1e-4
  )
  assert 0 <= float(group['retrieval']) <= 1
  np.testing.assert_allclose(group['retrieval_chance'], 1 / TASKS)
  same = batch._replace(extra={**batch.extra, 'group': jnp.zeros(TASKS)})
  group = learner.evaluate(params, same, jax.random.key(0))
  assert group['retrieval'] == group['retrieval_chance'] == 1


def test_the_contrast_takes_other_wordings_for_right():
  """The loss and what is found, in NumPy."""
  learner = hyperclip.make(WAY, **SIZES, encoder=(16,), noise=0.0)
  config = clip_config.get_config().unlock()
  config.episode.tasks = 0
  batch = batch_of(config, np.arange(TASKS))
  group = np.array([0, 0, 1, 2, 2, 2, 3, 4])
  batch = batch._replace(extra={**batch.extra, 'group': jnp.asarray(group)})
  first = jax.tree.map(lambda leaf: leaf[0], batch)
  params = learner.init(jax.random.key(0), first)
  key = jax.random.key(1)
  _, metrics = learner.loss(params, batch, key, 0)
  alone = batch._replace(extra={**batch.extra, 'group': jnp.arange(TASKS)})
  other = learner.loss(params, alone, key, 0)[1]
  assert other['contrast'] != metrics['contrast']
  s = hypernet.settings_of(
    WAY, **{k: v for k, v in SIZES.items() if not k.startswith('hvae')}
  )
  space = latent_space.Space('hnet', s, 5, (6,))
  unit = lambda v: np.asarray(v / np.linalg.norm(v))
  f, g = [], []
  for i in range(TASKS):
    one = jax.tree.map(lambda leaf, i=i: leaf[i], batch)
    z = latent_space.point_of_task(space, params, one)
    flat = latent_space.deviation(
      params, latent_space.weights_of(space, params, z)
    )
    f.append(unit(mlp.perceptron(params['encoder'], flat)))
    net = latent_space.net_params(params)
    words = hypernetwork.words_of(s, net, one.support.context)
    g.append(unit(words.question))
  logits = 20.0 * np.array(f) @ np.array(g).T
  total = 0.0
  for table in (logits, logits.T):
    log_p = table - np.log(np.exp(table).sum(axis=1, keepdims=True))
    for i in range(TASKS):
      total -= log_p[i, group == group[i]].mean() / TASKS
  np.testing.assert_allclose(metrics['contrast'], total, rtol=1e-4)
  found = np.mean(group[logits.argmax(axis=1)] == group)
  np.testing.assert_allclose(metrics['retrieval'], found)


def test_a_penalty_keeps_the_latent_near_its_start():
  _, params, _ = trained('hyperclip')
  far = []
  for penalty in (0.0, 100.0):
    learner = hyperclip.make(
      WAY,
      **SIZES,
      **MODULES['hyperclip'][2],
      guidance_steps=30,
      guidance_penalty=penalty,
      guidance_schedule='cosine',
    )
    support = jax.tree.map(lambda leaf: leaf[0], supports())
    task = learner.adapt(params, support, jax.random.key(0), train=False)
    start = params['frozen']['hypernet']['start']
    far.append(float(jnp.linalg.norm(task['z'] - start)))
  assert far[1] < 0.2 * far[0]


def test_the_vae_of_weights_beats_a_constant():
  _, params, metrics = trained('hvae')
  # In units of the spread about the base: a constant decoder has 1.
  assert metrics['error'] < 0.5
  space = latent_space.Space(
    'hvae',
    hypernet.settings_of(WAY, **{k: SIZES[k] for k in tiny_sizes.HYPERNET}),
    5,
    (64,),
  )
  whole = {
    'frozen': {
      **params['frozen'],
      'hvae': {k: v for k, v in params.items() if k != 'frozen'},
    }
  }
  codes = params['frozen']['hypernet']['codes']
  points = jax.vmap(lambda z: latent_space.point_of(space, whole, {'z': z}))(
    codes
  )
  net = latent_space.net_params(whole)
  true = jax.vmap(
    lambda z: flat(hypernetwork.network(space.net, net, {'z': z})[0])
  )(codes)
  back = jax.vmap(lambda z: flat(latent_space.weights_of(space, whole, z)))(
    points
  )
  apart = jnp.linalg.norm(back[:, None] - true[None], axis=-1)
  assert (apart.argmin(axis=1) == jnp.arange(TASKS)).mean() > 0.8


@SLOW
def test_diffusion_works_in_the_space_of_the_vae():
  learner, params, _ = trained('hyperldm', space='hvae')
  adapt = lambda s, k: learner.adapt(params, s, k, train=False)
  keys = jax.random.split(jax.random.key(0), TASKS)
  task = jax.jit(jax.vmap(adapt))(supports(), keys)
  assert set(task['value']) == {'weights'}
  got = jax.vmap(flat)(
    jax.tree.map(lambda v: v[:, 0], task['value']['weights'])
  )
  net = latent_space.net_params(params)
  codes = params['frozen']['hypernet']['codes']
  settings = hypernet.settings_of(
    WAY, **{k: SIZES[k] for k in tiny_sizes.HYPERNET}
  )
  true = jax.vmap(
    lambda z: flat(hypernetwork.network(settings, net, {'z': z})[0])
  )
  hits = nearest_codes(None, got, true(codes)) == jnp.arange(TASKS)
  assert float(hits.mean()) > 0.6


def test_latents_on_disk_are_what_the_learner_gets(tmp_path):
  tasks = example.example_tasks(0)
  latents = np.arange(3 * TASKS * 6, dtype=np.float32).reshape(3, TASKS, 6)
  path = tmp_path / 'latents.npz'
  np.savez(path, latents=latents[:, ::-1], ids=tasks.ids[::-1])
  found = task_set.with_latents(tasks, path)
  config = ldm_config.get_config().unlock()
  config.episode.update({'way': WAY, 'shot': 2, 'query': 2})
  draw = episodes.make_draw(config, found, train=True)
  episode = draw(episodes.train_keys(0, 0, 30), np.arange(30))
  for i in range(30):
    here = latents[:, i % TASKS]
    assert (here == episode.extra['latent'][i]).all(axis=1).any()
  copies = np.unique(np.asarray(episode.extra['latent'])[:, 0] // (TASKS * 6))
  assert len(copies) == 3
  learner, params, _ = trained('hyperldm')
  one = jax.tree.map(lambda leaf: leaf[0], episode)
  assert jnp.isfinite(learner.loss(params, one, jax.random.key(0), 0)[0])
  with pytest.raises(core.BadInput, match='lack 1 of 8 tasks'):
    np.savez(path, latents=latents[:, 1:], ids=tasks.ids[1:])
    task_set.with_latents(tasks, path)
  with pytest.raises(core.BadInput, match='no latents'):
    task_set.with_latents(tasks, tmp_path / 'none.npz')


def test_running_means_follow_and_forget():
  params = {
    'a': jnp.ones(2),
    'frozen': {'ema': {'a': jnp.zeros(2), 'decay': jnp.asarray(0.5)}},
  }
  for step, expected in ((0, 0.9), (1, 1 - 0.1 * 2 / 11)):
    params = train_step.averaged(params, step)
    np.testing.assert_allclose(
      params['frozen']['ema']['a'], expected, rtol=1e-5
    )
  late = {
    **params,
    'frozen': {'ema': {**params['frozen']['ema'], 'a': jnp.zeros(2)}},
  }
  np.testing.assert_allclose(
    train_step.averaged(late, 10_000)['frozen']['ema']['a'], 0.5
  )


@pytest.mark.parametrize(
  ('module', 'options', 'message'),
  [
    (hyperldm, {'schedule': 'square'}, 'schedule must be one of'),
    (hyperldm, {'sampler_steps': 200}, 'sampler_steps must be 1 to'),
    (hyperldm, {'drop_rate': 1.5}, r'drop_rate must be in \[0, 1\]'),
    (hyperldm, {'space': 'pixels'}, 'space must be one of'),
    (hyperldm, {'kind': 'multitask'}, 'has no latent for each task'),
    (hvae, {'kind': 'maml', 'inner_steps': 0}, 'adapts to no task'),
    (hyperclip, {'guidance_rate': 0.0}, 'guidance_rate'),
    (hyperclip, {'guidance_schedule': 'up'}, 'guidance_schedule must be'),
    (hvae, {'beta': -1.0}, 'beta and hvae_steps'),
  ],
)
def test_a_wrong_choice_is_refused(module, options, message):
  with pytest.raises(ValueError, match=message):
    module.make(WAY, **{**tiny_sizes.HYPERNET, **options})


def test_a_contrast_needs_several_tasks():
  learner, params, _ = trained('hyperclip')
  config = clip_config.get_config().unlock()
  config.episode.tasks = 0
  episode = jax.tree.map(lambda leaf: leaf[0], batch_of(config))
  with pytest.raises(ValueError, match=r'episode\.tasks >= 2'):
    learner.loss(params, episode, jax.random.key(0), 0)
