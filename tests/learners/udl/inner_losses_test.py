"""The label-free loop: what reaches what, what is refused, what is neutral."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hyperudl import core
from hyperudl.learners import vae
from hyperudl.learners.udl import config
from hyperudl.learners.udl import fast_weights
from hyperudl.learners.udl import gates as gating
from hyperudl.learners.udl import hypernetwork
from hyperudl.learners.udl import inner_loop
from hyperudl.learners.udl import inner_losses
from hyperudl.learners.udl import steps
from hyperudl.nets import conv
from hyperudl.ops import input_transform

WAY = 3
OPTIONS = inner_losses.Options(
  adapt='film',
  steps=2,
  elbo='features',
  ssl='geometry',
  critic='predictions',
  gate='elbo',
  rate=0.3,
  rates='learned',
  weight=0.1,
  norm='unit',
  meta_grad='full',
  direction='learned',
)
ALL_SSL = '+'.join(inner_losses.SSL)
# Of an adapted variable and an ELBO.
PAIRS = (
  ('film', 'features'),
  ('head', 'features'),
  ('transform', 'features'),
  ('encoder', 'images'),
)
OTHER_PAIRS = sorted(
  set(itertools.product(fast_weights.PARTS, ('features', 'images'))) - {*PAIRS}
)


def settings_of(options):
  cnn = conv.ConvNet(
    channels=(4, 5), stride=2, pool=False, norm='layer', head=None
  )
  sizes = {
    'width': 8,
    'layers': 1,
    'heads': 2,
    'trunk': (),
    'allocation': 'output',
    'strength': 0.1,
  }
  writer = hypernetwork.Writer(
    WAY, cnn, sizes, False, True, 'posterior', 3, (8,)
  )
  extras = config.Extras()
  return config.Settings(
    'joint', 'classes', writer, options, 0, 'identity', 0, 0.25, 0.1, extras
  )


def parameters(s, support, seed=0):
  """Random ones: at their initial values some paths are shut."""

  def init(key):
    keys = jax.random.split(key, 3)
    upstream = vae.make(WAY, latent=3, hidden=(8,))
    params = hypernetwork.init(s.writer, keys[0], support)
    episode = core.Episode(support, support)
    params['frozen'] = {'vae': upstream.init(keys[1], episode)}
    width = hypernetwork.width(s.writer, params['cnn'], support.x)
    start = inner_loop.start_of(s, params, jnp.zeros((WAY, width)))
    params['inner'] = inner_losses.init(
      s.inner, keys[2], start, WAY, width, support.x
    )
    return params

  rng = np.random.default_rng(seed)
  return jax.tree.map(
    lambda leaf: jnp.asarray(0.3 * rng.normal(size=leaf.shape), jnp.float32),
    jax.eval_shape(init, jax.random.key(0)),
  )


def support_of(rows=6, size=10, seed=0):
  x = jax.random.uniform(jax.random.key(seed), (WAY + rows, size, size, 1))
  return core.Examples(x, jnp.array([*range(WAY), *[-1] * rows]))


def with_view(options, function, params=None):
  """function(view, inner parameters) compiled as one program."""
  s, support = settings_of(options), support_of()
  params = parameters(s, support) if params is None else params

  @jax.jit
  def run(params, support):
    task = inner_loop.written(s, params, support)
    view = inner_loop.view_of(s, params, support, task)
    return function(view, params['inner'])

  return lambda x=None: run(
    params, support if x is None else support._replace(x=x)
  )


@pytest.mark.parametrize(
  'part, elbo',
  [
    *PAIRS,
    *(pytest.param(*pair, marks=pytest.mark.slow) for pair in OTHER_PAIRS),
  ],
)
def test_a_loss_has_a_gradient_exactly_where_the_table_of_reach_says(
  part, elbo
):
  options = OPTIONS._replace(
    adapt=part, elbo=elbo, ssl=ALL_SSL, critic='predictions+elbo'
  )

  def jacobian(view, params):
    terms = inner_losses.make_losses(options, params, view, jax.random.key(1))
    return jax.jacrev(terms)(view.start)

  found = with_view(options, jacobian)()
  on = {**inner_losses.SSL, 'elbo': elbo, 'critic': 'predictions'}
  assert set(found) == set(on)
  for name, value in found.items():
    leaves = jax.tree.leaves(value)
    assert all(jnp.isfinite(leaf).all() for leaf in leaves)
    norm = sum(float(jnp.sum(jnp.square(leaf))) for leaf in leaves) ** 0.5
    if part in fast_weights.REACH[on[name]]:
      assert norm > 1e-8, name
    else:
      assert norm == 0, name


@pytest.mark.parametrize(
  'changes, message',
  [
    ({'adapt': 'stem'}, 'adapt must be one of'),
    ({'adapt': 'film+film'}, 'adapt must be one of'),
    ({'elbo': 'pixels'}, 'elbo must be one of'),
    ({'ssl': 'rotation'}, "ssl must be 'none', one of"),
    ({'ssl': 'byol+byol'}, "ssl must be 'none', one of"),
    ({'critic': 'yes'}, 'critic must be one of'),
    ({'gate': 'open'}, 'gate must be one of'),
    ({'rates': 'tiny'}, 'rates must be one of'),
    ({'norm': 'l1'}, 'norm must be one of'),
    ({'meta_grad': 'half'}, 'meta_grad must be one of'),
    ({'steps': -1}, 'inner_steps must be >= 0'),
    (
      {'elbo': 'none', 'ssl': 'none', 'critic': 'none'},
      'no inner loss reaches',
    ),
    ({'elbo': 'images'}, "elbo='images' has no gradient"),
    ({'adapt': 'film+head', 'critic': 'none'}, "reaches adapt='head'"),
  ],
)
def test_illegal_options_are_refused(changes, message):
  with pytest.raises(ValueError, match=message):
    inner_losses.check(OPTIONS._replace(**changes))


@pytest.mark.parametrize(
  'changes',
  [
    {'steps': 0, 'elbo': 'none', 'ssl': 'none', 'critic': 'none'},
    {'adapt': 'encoder', 'elbo': 'images', 'ssl': 'none', 'critic': 'none'},
    {'adapt': 'head', 'elbo': 'none', 'ssl': 'entropy', 'critic': 'none'},
    {'adapt': 'film+head', 'ssl': 'byol+entropy', 'critic': 'none'},
  ],
)
def test_legal_options_pass(changes):
  inner_losses.check(OPTIONS._replace(**changes))


def test_the_identity_changes_nothing():
  everything = OPTIONS._replace(adapt='+'.join(fast_weights.PARTS))

  def compare(view, params):
    del params
    start = view.write({})
    return view.write(view.start), start, fast_weights.see(view.start, view.x)

  written, start, seen = with_view(everything, compare)()
  for a, b in zip(jax.tree.leaves(written), jax.tree.leaves(start)):
    np.testing.assert_allclose(a, b, atol=1e-5)
  np.testing.assert_allclose(seen, support_of().x, atol=1e-5)


def test_film_adds_each_number_once_and_leaves_kernels_alone():
  support = support_of()
  weights = parameters(settings_of(OPTIONS), support)['cnn']
  sizes = [b[k].size for b in weights.values() for k in ('scale', 'bias')]
  increment = jnp.arange(1.0, sum(sizes) + 1)
  new = fast_weights.film(weights, increment)
  added = []
  for name in sorted(new):
    np.testing.assert_array_equal(new[name]['kernel'], weights[name]['kernel'])
    for leaf in ('scale', 'bias'):
      added.extend(np.asarray(new[name][leaf] - weights[name][leaf]))
  np.testing.assert_allclose(sorted(added), increment, rtol=1e-4)


def test_a_canonicaliser_leaves_labelled_images_alone():
  support = support_of()
  value = {'transform': input_transform.identity()}
  value['transform']['bias'] = jnp.array([0.5])
  seen = fast_weights.see_unlabelled(value, support)
  np.testing.assert_array_equal(seen.x[:WAY], support.x[:WAY])
  np.testing.assert_allclose(seen.x[WAY:], support.x[WAY:] + 0.5, atol=1e-5)


def test_labelled_images_do_not_enter_the_loss_but_through_the_network():
  """What the steps look at are the -1 rows: the others are masked."""
  mask = with_view(OPTIONS, lambda view, params: (view.mask, view.labelled))()
  np.testing.assert_array_equal(mask[0], [0] * WAY + [1] * 6)
  np.testing.assert_array_equal(mask[1], [1] * WAY + [0] * 6)


def test_the_gate_scales_the_whole_step():
  options = OPTIONS._replace(steps=1)

  def run(view, params):
    step = lambda opening: steps.refine(
      options, params, view, view.start, opening, jax.random.key(2)
    )
    return step(1.0)[0], step(0.5)[0], step(1.0)[1]

  whole, half, trace = with_view(options, run)()
  np.testing.assert_allclose(
    2 * half['film'], whole['film'], rtol=1e-4, atol=1e-6
  )
  assert trace.update_norm[0] > 0


def test_a_placebo_of_noise_counts_as_many_images_as_the_real_steps():
  """Noise in the whole view, and noise given as context, do the same."""
  options = OPTIONS._replace(elbo='none')  # the rest draws nothing
  s, support = settings_of(options)._replace(cluster=2), support_of()
  params = parameters(s, support)
  zero = jnp.zeros(())
  params['inner']['cluster'] = {'log_scale': zero, 'log_mass': zero}
  noise = jax.random.uniform(jax.random.key(5), support.x.shape)

  @jax.jit
  def run(params):
    task = inner_loop.written(s, params, support)
    key = jax.random.key(1)
    view = inner_loop.view_of(s, params, support, task)._replace(x=noise)
    blind = inner_loop.refined(s, params, support, task, key, view)[0]
    given = support._replace(context={'inner': noise[WAY:]})
    same = inner_loop.refined(s, params, given, task, key)[0]
    real = inner_loop.refined(s, params, support, task, key)[0]
    return blind, same, real

  blind, same, real = run(params)
  for a, b in zip(jax.tree.leaves(blind), jax.tree.leaves(same)):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
  assert float(jnp.abs(blind['head'] - real['head']).max()) > 1e-4


def test_the_point_with_the_lowest_inner_loss_is_chosen():
  def run(view, params):
    start = steps.init_opening('chosen', jax.random.key(3), view.start, 3, 0.5)
    key = jax.random.key(2)
    total = steps.total_loss(OPTIONS, params, view, key)
    found = jax.vmap(total)(start['points'])
    given = {**params, 'start': {**start, 'log_sharpness': jnp.log(200.0)}}
    chosen = steps.opening_value('chosen', OPTIONS, given, view, key)
    given['start']['log_sharpness'] = jnp.float32(-40.0)
    mixed = steps.opening_value('chosen', OPTIONS, given, view, key)
    return start['points']['film'], found, chosen['film'], mixed['film']

  points, found, chosen, mixed = with_view(OPTIONS, run)()
  assert points.shape[0] == steps.POINTS
  np.testing.assert_array_equal(points[0], 0)
  assert len(np.unique(found)) == steps.POINTS
  np.testing.assert_allclose(chosen, points[np.argmin(found)], atol=1e-4)
  np.testing.assert_allclose(mixed, points.mean(axis=0), atol=1e-5)


def test_random_directions_are_as_long_as_the_true_gradients():
  options = OPTIONS._replace(steps=1, norm='none', rates='fixed')

  def run(view, params):
    step = lambda o: steps.refine(
      o, params, view, view.start, 1.0, jax.random.key(2)
    )[0]
    return step(options), step(options._replace(direction='random'))

  true, turned = (v['film'] for v in with_view(options, run)())
  size = jnp.linalg.norm
  np.testing.assert_allclose(size(turned), size(true), rtol=1e-4)
  assert float(jnp.vdot(true, turned) / size(true) ** 2) < 0.9


def test_without_an_outer_gradient_there_is_none_through_any_step():
  options = OPTIONS._replace(meta_grad='none')

  def run(view, params):
    def total(params):
      value, trace = steps.refine(
        options, params, view, view.start, 1.0, jax.random.key(2)
      )
      return jnp.sum(value['film']) + jnp.sum(trace.values['film'])

    return jax.grad(total)(params)

  for leaf in jax.tree.leaves(with_view(options, run)()):
    assert float(jnp.abs(leaf).max()) == 0


@pytest.mark.parametrize(
  'gate, inputs', [('elbo', 13), ('predictions', 8), ('predictions+elbo', 21)]
)
def test_gates_start_open_and_are_functions_of_the_images(gate, inputs):
  options = OPTIONS._replace(gate=gate, steps=0)
  s, support = settings_of(options), support_of()
  params = parameters(s, support)
  assert params['inner']['gate']['first']['kernel'].shape[0] == inputs

  def gates(view, inner):
    first = inner_losses.look(view, view.start)
    known = view.embed_support(first.weights)
    return steps.gates(options, inner, view, first, known)

  run = lambda params: with_view(options, gates, params)
  opening = run(params)
  here, there = opening(), opening(1 - support.x)
  assert ((here > 0) & (here[:2] < 1).all()).all()
  assert float(jnp.abs(here - there).max()) > 1e-6
  fresh = gating.init_gate(jax.random.key(0), inputs, 3)
  params['inner']['gate'] = fresh
  half_open = 1 / (1 + np.exp(-1.0))
  np.testing.assert_allclose(
    run(params)(), [half_open, half_open, 1], rtol=1e-5
  )


def test_step_sizes_are_signed_positive_or_fixed():
  start = {'film': jnp.zeros(3), 'head': jnp.zeros((2, 2))}
  for rates in ('learned', 'positive'):
    options = OPTIONS._replace(rates=rates, adapt='film+head', steps=2)
    params = inner_losses._init_steps(options, start, jnp.asarray)
    sizes = steps.step_sizes(options, params, start)
    np.testing.assert_allclose(sizes['film'], np.full((2, 3), 0.3), rtol=1e-6)
    np.testing.assert_allclose(sizes['head'], [0.3, 0.3], rtol=1e-6)
    moved = jax.tree.map(lambda leaf: leaf - 1.0, params['rates'])
    sizes = steps.step_sizes(options, {'rates': moved}, start)
    assert bool((sizes['film'] < 0).all()) == (rates == 'learned')
  options = OPTIONS._replace(rates='fixed')
  found = inner_losses._init_steps(options, start, jnp.asarray)
  assert not {'rates', 'weights'} & set(found)
  sizes = steps.step_sizes(options, {}, start)
  np.testing.assert_allclose(sizes['film'], np.full((2, 3), 0.3))


def test_the_critic_cannot_tell_classes_apart():
  logits = jnp.asarray(np.random.default_rng(0).normal(size=(6, 4)))
  mask = jnp.ones(6)
  turned = logits[:, jnp.array([2, 0, 3, 1])]
  np.testing.assert_allclose(
    gating.critic_inputs(logits, mask),
    gating.critic_inputs(turned, mask),
    rtol=1e-5,
  )
