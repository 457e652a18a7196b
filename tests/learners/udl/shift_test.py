"""The shift of an episode: its ELBO, its inference and what it moves."""

import jax
import jax.numpy as jnp
import numpy as np
from scipy import signal

from hyperudl import core
from hyperudl.learners import udl
from hyperudl.learners.udl import inner_loop
from hyperudl.learners.udl import shift
from hyperudl.learners.udl import target_network
from hyperudl.ops import shift_transform
from tests.testing import udl as helper

SHIFT = {
  'adapt': 'shift',
  'elbo': 'shift',
  'ssl': 'none',
  'critic': 'none',
  'gate': 'none',
  'cluster': 0,
}


def some_phi(size=0.2):
  rng = np.random.default_rng(1)
  phi = jax.tree.map(
    lambda leaf: jnp.float32(size * rng.normal(size=leaf.shape)),
    shift_transform.identity(),
  )
  return {**phi, 'negative': jnp.ones(1)}


def elbo_by_numpy(net, phi, x):
  """Mean and log-variance of the posterior, and the image that is decoded."""
  dense = lambda layer, rows: rows @ layer['kernel'] + layer['bias']
  silu = lambda rows: rows / (1 + np.exp(-rows))
  rows = np.asarray(shift_transform.invert(phi, x)).reshape(len(x), -1)
  hidden = silu(dense(net['encoder_0'], rows))
  mean, log_variance = np.split(dense(net['posterior'], hidden), 2, axis=1)
  hidden = silu(dense(net['decoder_0'], mean))
  decoded = 1 / (1 + np.exp(-dense(net['pixels'], hidden)))
  image = shift_transform.apply(phi, jnp.float32(decoded.reshape(x.shape)))
  return mean, np.clip(log_variance, -8, 4), np.asarray(image)


def elbo_terms(log_variance):
  """Terms of every second image, and what `elbo_by_numpy` says of all."""
  config = helper.tiny_config(**SHIFT)
  params = helper.random_params(udl.make(config))
  net = {
    **params['frozen']['vae']['net'],
    'log_variance': jnp.float32(log_variance),
  }
  params = {**params, 'frozen': {'vae': {'net': net}}}
  x, phi = helper.episode().support.x, some_phi()
  terms = shift.elbo_terms(config, params, phi, x, jnp.arange(len(x)) % 2.0)
  return terms, np.asarray(x), elbo_by_numpy(net, phi, x)


def test_the_elbo_is_that_of_the_image_as_it_is():
  terms, x, (mean, log_variance, image) = elbo_terms(-4.0)
  # The variance is the mean square of what is left of the images that count.
  variance = np.square(x - image)[1::2].mean()
  assert variance > np.exp(-4)
  squares = np.square(x - image) / variance + np.log(2 * np.pi * variance)
  np.testing.assert_allclose(
    terms['nll'], squares.sum(axis=(1, 2, 3)) / 2, rtol=1e-4
  )
  # The KL by Monte Carlo: the mean of log q(z) - log p(z).
  rng = np.random.default_rng(0)
  noise = rng.normal(size=(200_000, *mean.shape))
  latent = mean + np.exp(log_variance / 2) * noise
  kl = 0.5 * (latent**2 - noise**2 - log_variance).sum(axis=2).mean(axis=0)
  np.testing.assert_allclose(terms['kl'], kl, rtol=0.02, atol=0.02)
  # A vae that expects more noise than there is keeps its variance.
  terms, _, _ = elbo_terms(3.0)
  assert terms['log_noise'] == terms['log_misfit'] == 0
  squares = np.square(x - image) / np.exp(3) + np.log(2 * np.pi) + 3
  np.testing.assert_allclose(
    terms['nll'], squares.sum(axis=(1, 2, 3)) / 2, rtol=1e-4
  )


def test_white_noise_is_told_from_other_misfits():
  terms, x, (_, _, image) = elbo_terms(-4.0)
  mask = np.outer([1, -2, 1], [1, -2, 1])  # of Immerkaer (1996)
  residuals = (x - image)[1::2, ..., 0]
  white = np.mean(
    [signal.convolve2d(r, mask, 'valid') ** 2 / 36 for r in residuals]
  )
  np.testing.assert_allclose(terms['log_noise'], np.log(white) + 4, rtol=1e-3)
  rest = np.square(residuals).mean() - white
  np.testing.assert_allclose(
    terms['log_misfit'], max(np.log(rest) + 4, 0), rtol=1e-2
  )


def test_the_gradient_of_the_elbo_agrees_with_finite_differences():
  config = helper.tiny_config(**SHIFT)
  with jax.enable_x64(True):
    double = lambda tree: jax.tree.map(
      lambda x: jnp.asarray(x, jnp.float64), tree
    )
    params = double(helper.random_params(udl.make(config)))
    x, phi = double(helper.episode().support.x), double(some_phi(0.05))
    value = jax.jit(
      lambda phi: jnp.mean(
        shift.free_energy(config, params, phi, x, jnp.ones(len(x)))
      )
    )
    grads = jax.jit(jax.grad(value))(phi)
    np.testing.assert_array_equal(grads.pop('negative'), 0)
    for part in grads:
      leaf = phi[part]
      for at in np.ndindex(leaf.shape):
        ends = [value({**phi, part: leaf.at[at].add(h)}) for h in (1e-6, -1e-6)]
        numeric = (ends[0] - ends[1]) / 2e-6
        np.testing.assert_allclose(grads[part][at], numeric, 1e-4, 1e-5)


def test_without_a_shift_the_network_is_the_plain_one():
  config = helper.tiny_config(
    **{**SHIFT, 'shift_start': 'identity', 'inner_rate': 0.0}
  )
  learner = udl.make(config)
  data = helper.episode()
  params = jax.jit(learner.init)(jax.random.key(0), data)
  plain = helper.tiny_udl(phase='base')
  wanted = helper.logits(plain, helper.without_inner(params), data)
  got = helper.logits(learner, params, data)
  np.testing.assert_allclose(got, wanted, rtol=1e-6)
  # With steps it is another one.
  stepping = helper.tiny_udl(
    **{**SHIFT, 'shift_start': 'identity', 'inner_rate': 0.05}
  )
  params = jax.jit(stepping.init)(jax.random.key(0), data)
  params['inner']['shift']['threshold'] = jnp.float32(-5.0)
  moved = helper.logits(stepping, params, data)
  assert np.abs(moved - got).max() > 1e-3


def test_prototypes_move_to_the_shifted_support():
  config = helper.tiny_config(**SHIFT)
  phi = some_phi()

  def move(params, network, support):
    moved = shift.move_prototypes(config, network, support, phi, 0.5)
    return network, moved.prototypes, params['log_scale']

  network, prototypes, _ = helper.on_network(config, move)()
  support = helper.episode().support
  learner = udl.make(config)
  x = shift_transform.apply(phi, support.x[: helper.WAY])
  # One labelled image a class: the prototype is its feature as a query's.
  logits = learner.predict(None, network, x, None)
  own = np.asarray(prototypes - network.prototypes) / 0.5
  sizes = np.linalg.norm(network.prototypes, axis=1)
  np.testing.assert_allclose(np.linalg.norm(own, axis=1), sizes, rtol=1e-4)
  unit = own / sizes[:, None]
  heads = network.prototypes / sizes[:, None]
  wanted = np.exp(network.log_scale) * unit @ heads.T
  np.testing.assert_allclose(logits, wanted, rtol=1e-3, atol=1e-3)


def test_blended_images_are_between_themselves_and_their_reconstruction():
  config = helper.tiny_config(**SHIFT, blend=True)
  learner = udl.make(config)
  data = helper.episode()
  params = helper.random_params(learner)
  params['frozen']['vae']['net']['log_variance'] = jnp.float32(-2.5)
  params['inner']['shift']['blend'] = {
    'logit': jnp.float32(0.4),
    'threshold': jnp.float32(0.3),
    'log_slope': jnp.float32(0.2),
  }
  phi = some_phi(0.1)
  images = inner_loop.select_images(data.support)
  blend = shift.blend(config, params, phi, images)
  terms = shift.elbo_terms(config, params, phi, images.x, images.mask)
  logistic = lambda x: 1 / (1 + np.exp(-x))
  wanted = logistic(0.4) * logistic(np.exp(0.2) * (terms['log_noise'] - 0.3))
  np.testing.assert_allclose(blend.weight, wanted, rtol=1e-5)
  assert 0 < blend.weight < 1

  def read(params, network, support):
    network = network._replace(blend=blend)
    features = target_network.with_features(config, network, support).features
    return features, target_network.clean(config, network, support.x)

  features, cleaned = helper.on_network(config, read, params)()
  x = data.support.x
  wanted = x + blend.weight * (terms['image'] - x)
  np.testing.assert_allclose(cleaned, wanted, rtol=1e-4, atol=1e-5)
  # Labelled images are read as they are, the others blended.
  labelled = (data.support.y >= 0)[:, None, None, None]
  mixed = jnp.where(labelled, x, wanted)

  def plain(params, network, support):
    support = support._replace(x=mixed)
    return target_network.with_features(config, network, support).features

  np.testing.assert_allclose(
    features, helper.on_network(config, plain, params)(), rtol=1e-3, atol=1e-4
  )


def test_the_start_is_the_candidate_with_the_smallest_loss():
  x = helper.episode().support.x
  support = core.Examples(x, jnp.array([0, 1, 2] + [-1] * (len(x) - 3)))
  images = inner_loop.select_images(support)
  target = jnp.asarray(shift.CANDIDATES[2])
  value = lambda phi: jnp.sum(jnp.square(phi['matrix'] - target))
  phi = shift.initial_value(images, value)
  np.testing.assert_array_equal(phi['matrix'], target)
  own, others = np.asarray(x[:3]), np.asarray(x[3:])
  gain = min(others.std() / own.std(), 1)
  np.testing.assert_allclose(np.exp(phi['gain'][0]), gain, rtol=1e-3)
  np.testing.assert_allclose(
    phi['bias'][0], others.mean() - gain * own.mean(), rtol=1e-3, atol=1e-4
  )
  # Where dark and bright are exchanged the contrast is negative.
  x = jnp.concatenate([x[:3] ** 4, 1 - x[3:] ** 4])
  phi = shift.initial_value(
    images._replace(x=x, support=core.Examples(x, support.y)), value
  )
  assert phi['negative'] == 1
  others, own = np.asarray(x[3:]), np.asarray(x[:3])
  gain = -min(others.std() / own.std(), 1)
  np.testing.assert_allclose(
    phi['bias'][0], others.mean() - gain * own.mean(), rtol=1e-3, atol=1e-4
  )


def test_the_weight_of_shifted_prototypes_by_its_formula():
  config = helper.tiny_config(**SHIFT, shift_images=3)
  params = helper.random_params(udl.make(config))
  params['frozen']['vae']['net']['log_variance'] = jnp.float32(-6.0)
  learned = {
    **{'log_weight': 0.2, 'threshold': 30.0, 'log_slope': -2.0, 'misfit': 2.0}
  }
  params['inner']['shift'] = jax.tree.map(jnp.float32, learned)
  support = helper.episode().support
  images = inner_loop.select_images(support)
  x = support.x[helper.WAY : helper.WAY + 3]  # the first unlabelled ones
  logistic = lambda value: 1 / (1 + np.exp(-value))
  weights = []
  for seed in range(4):
    phi = some_phi(0.1)
    phi['matrix'] = 0.1 * jax.random.normal(jax.random.key(seed), (2, 2))
    flat = {**phi, 'matrix': jnp.zeros((2, 2)), 'translation': jnp.zeros(2)}
    energies = [
      np.asarray(shift.free_energy(config, params, each, x, jnp.ones(3)))
      for each in (flat, phi)
    ]
    gains = energies[0] - energies[1]
    ratio = gains.mean() / (gains.std() / np.sqrt(3))
    np.testing.assert_allclose(
      shift.gain(config, params, phi, images), ratio, rtol=1e-2, atol=1e-3
    )
    misfit = shift.elbo_terms(config, params, phi, x, jnp.ones(3))['log_misfit']
    assert misfit > 1.2
    gate = logistic(np.exp(-2) * (ratio - 30 - 2 * misfit))
    weights.append(gate * (1 - np.exp(-max(ratio, 0))) * np.exp(0.2))
    np.testing.assert_allclose(
      shift.weight(config, params, phi, images), weights[-1], 0.02, 1e-3
    )
  assert min(weights) > 0.05 and max(weights) > min(weights) + 0.3
  # Without an ELBO only the size of phi counts.
  config = helper.tiny_config(
    **{**SHIFT, 'elbo': 'none', 'ssl': 'mixture', 'shift_images': 3}
  )
  size = np.square(phi['matrix']).sum() + np.square(phi['translation']).sum()
  np.testing.assert_allclose(
    shift.weight(config, params, phi, images),
    (1 - np.exp(-size / 0.01)) * np.exp(0.2),
    rtol=1e-4,
  )
