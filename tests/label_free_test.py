"""The label-free loop: what reaches what, what is refused, what is neutral."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hyperudl import label_free
from hyperudl.nets import canonical
from hyperudl.nets import conv
from hyperudl.nets import vae as vae_net

WAY = 3
OPTIONS = label_free.Options(
  adapt='film+transform',
  steps=2,
  elbo='features',
  ssl='geometry',
  critic='predictions',
  gate='elbo',
  rate=0.3,
  first_order=False,
)


def view_of(options, seed=0, size=10, rows=6):
  """A random episode's View, and parameters for it."""
  keys = jax.random.split(jax.random.key(seed), 6)
  net = conv.ConvNet(
    channels=(4, 5), stride=2, pool=False, norm='layer', head=None
  )
  # Compiled once each: eager tests would compile every operation alone.
  x = jax.random.uniform(keys[0], (rows, size, size, 1))
  weights = jax.jit(net.init)(keys[1], x[:1])['params']
  embed = jax.jit(lambda weights, x: net.apply({'params': weights}, x))
  features = embed(weights, x[:1]).shape[-1]
  head = jax.random.normal(keys[2], (features, WAY))
  vae = vae_net.VAE((size, size, 1), 3, (8,))
  noise = jnp.zeros((rows, 3))
  variables = jax.jit(vae.init)(keys[3], x, noise)
  reconstruct = jax.jit(
    lambda x: vae.apply(variables, x, jnp.zeros((x.shape[0], 3)))
  )
  moments = {
    'error_mean': jnp.asarray(8.0),
    'error_std': jnp.asarray(2.0),
    'kl_mean': jnp.asarray(0.5),
    'kl_std': jnp.asarray(0.3),
  }
  view = label_free.View(
    weights=weights,
    embed=embed,
    classify=lambda features: features @ head,
    reconstruct=reconstruct,
    moments=moments,
    population=(jnp.zeros(3), jnp.zeros(3)),
    support={**reconstruct(x[:WAY]), 'mask': jnp.ones(WAY)},
    x=x,
    mask=jnp.array([1.0] * (rows - 2) + [0.0, 0.0]),
  )
  params = label_free.init(options, keys[4], weights, WAY, features, x)
  return view, params


LOSSES = (
  ('features', 'none', 'none'),
  ('images', 'none', 'none'),
  ('none', 'geometry', 'none'),
  ('none', 'byol', 'none'),
  ('none', 'none', 'predictions'),
  ('none', 'none', 'predictions+elbo'),
)
LEGAL = [
  (adapt, *losses)
  for adapt, losses in itertools.product(('film', 'transform'), LOSSES)
  if (adapt, losses[0]) != ('film', 'images')
]


@pytest.mark.parametrize('choice', LEGAL, ids='-'.join)
def test_every_configured_loss_has_a_gradient_in_the_adapted_variable(choice):
  adapt, elbo, ssl, critic = choice
  options = OPTIONS._replace(adapt=adapt, elbo=elbo, ssl=ssl, critic=critic)
  label_free.check(options)
  view, params = view_of(options)
  terms = label_free.make_losses(options, params, view, jax.random.key(1))
  start = label_free.identity(options, view.weights)
  (name,) = jax.eval_shape(terms, start)
  grads = jax.jit(jax.grad(lambda v: terms(v)[name]))(start)
  for leaf in jax.tree.leaves(grads):
    assert jnp.isfinite(leaf).all()
  for part, tree in grads.items():
    norm = sum(float(jnp.sum(g * g)) for g in jax.tree.leaves(tree)) ** 0.5
    assert norm > 1e-8, part


def test_an_elbo_that_never_sees_the_variable_is_refused_and_would_be_a_no_op():
  options = OPTIONS._replace(
    adapt='film', elbo='images', ssl='none', critic='none'
  )
  with pytest.raises(ValueError, match="elbo='images' has no gradient"):
    label_free.check(options)
  view, params = view_of(options)
  terms = label_free.make_losses(options, params, view, jax.random.key(1))
  start = label_free.identity(options, view.weights)
  grads = jax.grad(lambda v: terms(v)['elbo'])(start)
  assert float(jnp.abs(grads['film']).max()) == 0


@pytest.mark.parametrize(
  'changes, message',
  [
    ({'adapt': 'head'}, 'adapt must be one of'),
    ({'elbo': 'pixels'}, 'elbo must be one of'),
    ({'ssl': 'rotation'}, 'ssl must be one of'),
    ({'critic': 'yes'}, 'critic must be one of'),
    ({'gate': 'open'}, 'gate must be one of'),
    ({'steps': -1}, 'inner_steps must be >= 0'),
    (
      {'elbo': 'none', 'ssl': 'none', 'critic': 'none'},
      'no inner loss reaches',
    ),
  ],
)
def test_illegal_options_are_refused(changes, message):
  with pytest.raises(ValueError, match=message):
    label_free.check(OPTIONS._replace(**changes))


def test_no_steps_need_no_loss():
  label_free.check(
    OPTIONS._replace(steps=0, elbo='none', ssl='none', critic='none')
  )


def test_the_identity_changes_nothing():
  view, _ = view_of(OPTIONS)
  start = label_free.identity(OPTIONS, view.weights)
  features, seen = label_free.through(view.embed, view.weights, start, view.x)
  np.testing.assert_allclose(seen, view.x, atol=1e-5)
  np.testing.assert_allclose(
    features, view.embed(view.weights, view.x), atol=1e-4
  )


def test_film_adds_each_number_once_and_leaves_kernels_alone():
  view, _ = view_of(OPTIONS)
  sizes = [b[k].size for b in view.weights.values() for k in ('scale', 'bias')]
  increment = jnp.arange(1.0, sum(sizes) + 1)
  new = label_free.film(view.weights, increment)
  added = []
  for name in sorted(new):
    np.testing.assert_array_equal(
      new[name]['kernel'], view.weights[name]['kernel']
    )
    for leaf in ('scale', 'bias'):
      added.extend(np.asarray(new[name][leaf] - view.weights[name][leaf]))
  np.testing.assert_allclose(sorted(added), increment, rtol=1e-4)


def test_masked_images_do_not_move_the_variable():
  view, params = view_of(OPTIONS)
  run = jax.jit(
    lambda x: label_free.refine(
      OPTIONS, params, view._replace(x=x), jax.random.key(2)
    )[0]
  )
  changed = view.x.at[-2:].set(0.9)
  first, second = run(view.x), run(changed)
  for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second)):
    np.testing.assert_allclose(a, b, atol=1e-5)
  moved = run(view.x.at[0].set(0.9))
  assert float(jnp.abs(moved['film'] - first['film']).max()) > 1e-4


def test_the_gate_scales_the_whole_step():
  options = OPTIONS._replace(adapt='film', steps=1)
  view, params = view_of(options)
  shut = {**params, 'gate': jax.tree.map(jnp.zeros_like, params['gate'])}
  refine = jax.jit(
    lambda p: label_free.refine(options, p, view, jax.random.key(2))
  )
  value, gate, trace = refine(params)
  half, half_gate, _ = refine(shut)
  np.testing.assert_allclose(gate, 1 / (1 + np.exp(-1.0)), rtol=1e-5)
  np.testing.assert_allclose(half_gate, 0.5)
  np.testing.assert_allclose(
    half['film'] / half_gate, value['film'] / gate, rtol=1e-4, atol=1e-6
  )
  assert trace.update_norm[0] > 0


def test_the_critic_cannot_tell_classes_apart():
  from hyperudl import unsupervised

  logits = jnp.asarray(np.random.default_rng(0).normal(size=(6, 4)))
  mask = jnp.ones(6)
  turned = logits[:, jnp.array([2, 0, 3, 1])]
  np.testing.assert_allclose(
    unsupervised.critic_inputs(logits, mask),
    unsupervised.critic_inputs(turned, mask),
    rtol=1e-5,
  )


def test_canonicaliser_is_the_identity_at_zero_and_moves_what_it_says():
  x = np.zeros((1, 12, 12, 1), np.float32)
  x[0, 5, 4] = 1.0
  v = canonical.identity()
  np.testing.assert_allclose(canonical.apply(v, x), x, atol=1e-6)
  # One pixel down and two to the right (tens of pixels; source = target + v).
  v['translation'] = jnp.array([-0.1, -0.2])
  moved = canonical.apply(v, x)
  assert np.unravel_index(np.argmax(moved), moved.shape)[1:3] == (6, 6)
  v = canonical.identity()
  v['gain'], v['bias'] = jnp.array([1.0]), jnp.array([0.25])
  np.testing.assert_allclose(canonical.apply(v, x), 2 * x + 0.25, atol=1e-5)


def test_canonicaliser_has_a_gradient_in_every_number_at_the_identity():
  rng = np.random.default_rng(0)
  x = jnp.asarray(rng.uniform(-0.3, 1.3, size=(2, 9, 9, 1)), jnp.float32)
  target = jnp.asarray(rng.uniform(size=(2, 9, 9, 1)), jnp.float32)
  loss = lambda v: jnp.sum(jnp.square(canonical.apply(v, x) - target))
  grads = jax.grad(loss)(canonical.identity())
  for name, leaf in grads.items():
    assert (jnp.abs(leaf) > 1e-4).all(), name


def test_canonicaliser_gradients_agree_with_finite_differences():
  with jax.enable_x64(True):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.uniform(size=(2, 9, 9, 1)))
    target = jnp.asarray(rng.uniform(size=(2, 9, 9, 1)))
    v = {
      name: jnp.asarray(0.03 * rng.normal(size=size))
      for name, size in canonical.GROUPS.items()
    }
    loss = jax.jit(
      lambda v: jnp.sum(jnp.square(canonical.apply(v, x) - target))
    )
    grads = jax.jit(jax.grad(loss))(v)
    for name, leaf in v.items():
      for i in range(leaf.size):
        ends = [loss({**v, name: leaf.at[i].add(h)}) for h in (1e-6, -1e-6)]
        numeric = (ends[0] - ends[1]) / 2e-6
        np.testing.assert_allclose(
          grads[name][i], numeric, rtol=1e-5, atol=1e-6
        )
