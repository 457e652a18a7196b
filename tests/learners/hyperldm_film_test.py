"""Diffusion over the film of `udl`'s CNN, guided by the VAE's posterior."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import hyperldm_film as film_config
from configs import vae as vae_config
from hyperudl.data import episodes
from hyperudl.data.episodes import augment
from hyperudl.learners import hyperldm_film
from hyperudl.learners import udl
from hyperudl.learners import vae
from hyperudl.ops import losses
from hyperudl.training import optimizers
from hyperudl.training import train_step
from tests.testing import example
from tests.testing import tiny_sizes

WAY = 3
SIZES = tiny_sizes.TINY['hyperldm_film']


def make(**changes):
  return hyperldm_film.make(WAY, **{**SIZES, **changes})


@functools.cache
def batch():
  config = film_config.get_config().unlock()
  config.episode.update({'way': WAY, 'shot': 2, 'query': 11, 'unlabelled': 3})
  data = example.example_data(config, 0, 14)
  draw = episodes.make_draw(config, data, train=True)
  return draw(episodes.train_keys(0, 0, 1))


def first():
  return jax.tree.map(lambda leaf: leaf[0], batch())


@functools.cache
def untrained():
  return jax.jit(make().init)(jax.random.key(0), first())


def answer(learner, params, episode, key):
  """Query logits of an episode."""

  def run(params, episode, key):
    task = learner.adapt(params, episode.support, key, train=False)
    return learner.predict(params, task, episode.query.x, None)

  return jax.jit(run)(params, episode, key)


def as_udl(**changes):
  """`udl` with the same frozen network and no step of its own."""
  sizes = {**tiny_sizes.UDL, **changes}
  return udl.make(WAY, phase='inner', inner_steps=0, cluster=0, **sizes)


def filmed(params, task, v, x):
  """Logits under v f32[F], which is cut into scales and biases here."""
  weights, start = {}, 0
  for name, block in sorted(task['weights'].items()):
    weights[name] = dict(block)
    for leaf in ('scale', 'bias'):
      stop = start + block[leaf].size
      weights[name][leaf] = block[leaf] + v[start:stop]
      start = stop
  assert start == len(v)
  return as_udl().predict(params, {**task, 'weights': weights}, x, None)


def test_without_film_it_is_the_network_that_udl_writes():
  params, episode, key = untrained(), first(), jax.random.key(3)
  still = jax.tree.map(jnp.zeros_like, params['moments'])
  still['log_std'] -= 40
  frozen = params['frozen']
  ema = {**frozen['ema'], 'moments': still}
  params = {**params, 'frozen': {**frozen, 'ema': ema}}
  learner, plain = make(samples=2), as_udl()
  logits = answer(learner, params, episode, key)
  wanted = answer(plain, params, episode, key)
  np.testing.assert_allclose(
    logits, jax.nn.log_softmax(wanted), rtol=1e-4, atol=1e-4
  )
  metrics = jax.jit(learner.evaluate)(params, episode, key)
  same = losses.accuracy(wanted, episode.query.y)
  for name in ('accuracy', 'accuracy_unadapted', 'accuracy_placebo'):
    assert metrics[name] == pytest.approx(float(same)), name
  assert metrics['gain_step'] == metrics['gain_data'] == 0


def test_labels_find_a_film_that_fits_them():
  """On the images that it is found with, by gradients taken another way."""
  params, episode = untrained(), first()
  settings = hyperldm_film.settings_of(WAY, **{**SIZES, 'target_steps': 1})
  task, view = hyperldm_film._written(settings, params, episode.support)
  x, y = episode.query.x, episode.query.y
  found = hyperldm_film._found(settings, params, task, view, x, y)
  weights, blocks = task['weights'], sorted(task['weights'])
  plain = as_udl()

  def loss(leaves):
    new = {
      name: {**weights[name], **leaf} for name, leaf in zip(blocks, leaves)
    }
    logits = plain.predict(params, {**task, 'weights': new}, x, None)
    return losses.cross_entropy(logits, y)

  leaves = [
    {name: weights[block][name] for name in ('scale', 'bias')}
    for block in blocks
  ]
  slopes = jax.grad(loss)(leaves)
  flat = jnp.concatenate(
    [leaf[name] for leaf in slopes for name in ('scale', 'bias')]
  )
  step = -0.3 * flat / jnp.linalg.norm(flat)
  np.testing.assert_allclose(found, step, rtol=1e-3, atol=1e-5)
  many = settings._replace(target_steps=20)
  v = hyperldm_film._found(many, params, task, view, x, y)
  value = lambda v: losses.cross_entropy(filmed(params, task, v, x), y)
  assert value(v) < value(0 * v) - 0.05


def test_what_the_labels_of_unlabelled_images_do_is_measured_on_queries():
  params, episode, key = untrained(), first(), jax.random.key(3)
  metrics = jax.jit(make().evaluate)(params, episode, key)
  settings = hyperldm_film.settings_of(WAY, **SIZES)
  task, view = hyperldm_film._written(settings, params, episode.support)
  hidden = episode.extra['unlabelled_y']
  x = episode.support.x[-len(hidden) :]
  v = hyperldm_film._found(settings, params, task, view, x, hidden)
  logits = filmed(params, task, v, episode.query.x)
  wanted = float(losses.accuracy(logits, episode.query.y))
  assert metrics['accuracy_labelled'] == pytest.approx(wanted)
  for name in ('accuracy_unadapted', 'accuracy'):  # that it is neither
    assert metrics[name] != pytest.approx(wanted)
  bare = episode._replace(extra=None)
  assert 'accuracy_labelled' not in jax.jit(make().evaluate)(params, bare, key)


def test_it_learns_the_film_of_all_labelled_shifted_images(monkeypatch):
  params, episode, key = untrained(), first(), jax.random.key(3)
  taken = lambda s, params, z, c, key: (0.0, {'z': z, 'c': c})
  monkeypatch.setattr(hyperldm_film.denoising, 'loss', taken)
  _, taken = make().loss(params, episode, key, 0)
  settings = hyperldm_film.settings_of(WAY, **SIZES)
  task, view = hyperldm_film._written(settings, params, episode.support)
  hidden = episode.extra['unlabelled_y']
  x = jnp.concatenate([episode.query.x, episode.support.x[-len(hidden) :]])
  y = jnp.concatenate([episode.query.y, hidden])
  v = hyperldm_film._found(settings, params, task, view, x, y)
  unit = 0.3 * 2 / np.sqrt(v.size)  # two steps of one direction
  np.testing.assert_allclose(unit * taken['z'], v, rtol=1e-4, atol=1e-6)
  np.testing.assert_array_equal(taken['c'], hyperldm_film._condition(view))


def test_each_sample_is_of_the_condition_and_the_placebo_of_noise(monkeypatch):
  """The sampler is replaced by a fixed linear map of condition and noise."""
  params, episode, key = untrained(), first(), jax.random.key(3)
  size = params['moments']['mean'].shape[0]
  map_key = jax.random.key(7)

  def film(condition, key):
    linear = jax.random.normal(map_key, (size, condition.shape[0]))
    return 2 * linear @ condition + jax.random.normal(key, (size,))

  monkeypatch.setattr(
    hyperldm_film.denoising, 'sample', lambda s, params, c, key: film(c, key)
  )
  learner = make(samples=2)
  settings = hyperldm_film.settings_of(WAY, **SIZES)
  task, view = hyperldm_film._written(settings, params, episode.support)
  x, y = episode.query.x, episode.query.y

  def wanted(view):
    condition = hyperldm_film._condition(view)
    each = []
    for one in jax.random.split(key, 2):
      v = 0.3 * 2 / np.sqrt(size) * film(condition, one)
      each.append(jax.nn.softmax(filmed(params, task, v, x)))
    return jnp.log(sum(each) / 2)

  logits = answer(learner, params, episode, key)
  np.testing.assert_allclose(logits, wanted(view), rtol=1e-4, atol=1e-4)
  metrics = jax.jit(learner.evaluate)(params, episode, key)
  noise = augment.noise_images(jax.random.fold_in(key, 1), view.x.shape)
  blind = wanted(view._replace(x=noise))
  assert (jnp.abs(blind - logits) > 1e-2).any()
  own, other = (float(losses.accuracy(each, y)) for each in (logits, blind))
  assert own != other
  assert metrics['accuracy'] == pytest.approx(own)
  assert metrics['accuracy_placebo'] == pytest.approx(other)


def test_the_condition_is_bounded_and_reads_both_sets():
  params, episode = untrained(), first()
  settings = hyperldm_film.settings_of(WAY, **SIZES)
  _, view = hyperldm_film._written(settings, params, episode.support)
  c = hyperldm_film._condition(view)
  assert c.shape == (2 * (3 * 3 + 1),)
  # The moments once more, image by image.
  x = np.asarray(view.x)[np.asarray(view.mask) > 0]
  terms = jax.device_get(view.reconstruct(view.start, x))
  center, log_spread = jax.device_get(view.population)
  values = [
    (terms['mean'].mean(0) - center) / np.exp(log_spread) ** 0.5,
    np.log(np.exp(terms['log_variance']).mean(0) + 1e-3),
    np.log(terms['mean'].var(0) / np.exp(log_spread) + 1e-3),
    [np.log(1 + len(x))],
  ]
  wanted = 3 * np.tanh(np.concatenate(values) / 3)
  np.testing.assert_allclose(c[:10], wanted, rtol=1e-4, atol=1e-4)
  far = hyperldm_film._condition(view._replace(x=100 * view.x))
  assert jnp.abs(far).max() <= 3
  assert (c[:10] != far[:10]).any()
  np.testing.assert_array_equal(c[10:], far[10:])


def trained(learner, config, steps, batch, rate, frozen):
  """(parameters, draw) after updates on the glyphs, above `frozen`."""
  config = config.unlock()
  config.episode.update({'way': WAY, 'shot': 2, 'query': 4})
  config.optimizer.learning_rate = rate
  data = example.example_data(config, 0, 14)
  draw = episodes.make_draw(config, data, train=True)
  optimizer = optimizers.make_optimizer(config.optimizer, steps)
  state = train_step.init_state(learner, optimizer, jax.random.key(0), first())
  if frozen:
    frozen = {**state.params['frozen'], **frozen}
    state = state._replace(params={**state.params, 'frozen': frozen})
  step = train_step.make_train_step(learner, optimizer, 'vmap')
  for t in range(steps):
    keys = episodes.train_keys(1, t, batch)
    state, _ = step(state, draw(keys), keys)
  return state.params, draw


@pytest.mark.slow
def test_it_samples_the_film_that_the_images_call_for(monkeypatch):
  """Films of training tasks are a fixed linear map of their condition here."""
  sizes = {**SIZES, 'vae_hidden': (32,), 'denoiser': (64, 64), 'ema': 0.98}
  sizes |= {'timesteps': 40, 'sampler_steps': 40}
  encoder = vae.make(WAY, latent=3, hidden=(32,), beta_steps=100)
  upstream, _ = trained(
    encoder, vae_config.get_config(), 300, 8, 3e-3, frozen={}
  )
  linear = jax.random.normal(jax.random.key(7), (20, 20)) / np.sqrt(20)

  def found(s, params, task, view, x, y):
    v = linear @ hyperldm_film._condition(view)
    return hyperldm_film._unit(s, v) * v

  monkeypatch.setattr(hyperldm_film, '_found', found)
  params, draw = trained(
    make(**sizes),
    film_config.get_config(),
    600,
    16,
    1e-2,
    frozen={'vae': upstream},
  )
  keys = episodes.eval_keys('test', 0, 60)
  supports = draw(keys).support

  def both(gamma):
    """(what it samples, what the images call for), f32[60, F] each."""
    s = hyperldm_film.settings_of(WAY, **sizes, gamma=gamma)

    def one(support, key):
      task, view = hyperldm_film._written(s, params, support)
      task = hyperldm_film._sampled(s, params, task, view, key)
      return task['film'][0], found(s, params, task, view, None, None)

    return jax.jit(jax.vmap(one))(supports, keys)

  def unexplained(got, wanted):
    return jnp.sum((got - wanted) ** 2) / jnp.sum(
      (wanted - wanted.mean(0)) ** 2
    )

  got, wanted = both(gamma=1.0)
  assert unexplained(got, wanted) < 0.8  # a constant has 1
  apart = jnp.linalg.norm(got[:, None] - wanted[None], axis=-1)
  assert (apart.argmin(axis=1) == jnp.arange(60)).mean() > 0.25  # chance 1/60
  assert unexplained(*both(gamma=0.0)) > 1.2  # a blind draw has 2


@pytest.mark.parametrize(
  ('settings', 'told'),
  [
    ({'target_steps': 0}, 'target_steps must be >= 1'),
    ({'target_rate': 0.0}, 'target_rate > 0'),
    ({'schedule': 'square'}, 'schedule must be one of'),
    ({'samples': 0}, 'samples must be >= 1'),
    ({'condition': 'dreams'}, 'condition must be one of'),
  ],
)
def test_what_cannot_be_is_refused(settings, told):
  with pytest.raises(ValueError, match=told):
    make(**settings)
