"""The original UDL: sizes, its naming of outputs by hand, its inputs."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hyperudl import core
from hyperudl.learners import udl_original
from hyperudl.nets import vae
from tests.testing import by_hand
from tests.testing import guidance
from tests.testing import laws

LAWS = {
  'udl_original': laws.Laws(
    slow='compiling and training it takes too long for every run',
    unjudged='it names its clusters by the hidden labels in `extra`',
    learning_rate=0.02,
    steps=400,
    image_size=16,
    reason='it is trained with larger and more steps than others, and the '
    'sides of its images must be multiples of 4',
  )
}

TINY = {
  'latent': 3,
  'vae_width': 4,
  'rows': 12,
  'head_hidden': 5,
  'hidden': (6, 4),
  'inner_batch': 4,
}


def make(**changes):
  return udl_original.make(udl_original.Config(way=3, **TINY, **changes))


def episode(way=4, size=28):
  keys = jax.random.split(jax.random.key(0), 2)
  hidden = jnp.arange(2 * way) % way
  x = jax.random.uniform(keys[0], (3 * way, size, size, 1))
  y = jnp.concatenate([jnp.arange(way), jnp.full((2 * way,), -1)])
  query = core.Examples(
    jax.random.uniform(keys[1], (2 * way, size, size, 1)),
    jnp.arange(2 * way) % way,
  )
  return core.Episode(core.Examples(x, y), query, {'unlabelled_y': hidden})


def count(tree):
  return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def test_sizes_are_those_of_the_original():
  learner = udl_original.make(udl_original.Config(way=4))
  data = episode()
  params = jax.eval_shape(learner.init, jax.random.key(0), data)
  adapt = functools.partial(learner.adapt, train=False)
  task = jax.eval_shape(adapt, params, data.support, jax.random.key(0))
  assert count(task) == 183_804
  assert round(count(params['theta']) / 1e6, 1) == 47.4
  net = params['frozen']['vae']['net']
  assert net['middle']['kernel'].shape == (128, 3200)
  assert net['wide']['kernel'].shape == (3200, 6272)


def test_the_residual_autoencoder_has_the_maps_of_the_original():
  net = vae.ResidualVAE((28, 28, 1), 10)
  x = jax.ShapeDtypeStruct((2, 28, 28, 1), jnp.float32)
  noise = jax.ShapeDtypeStruct((2, 10), jnp.float32)
  variables = jax.eval_shape(net.init, jax.random.key(0), x, noise)
  _, seen = jax.eval_shape(
    lambda v, x, n: net.apply(v, x, n, capture_intermediates=True),
    variables,
    x,
    noise,
  )
  maps = {
    name: seen['intermediates'][name]['__call__'][0].shape[1:]
    for name in seen['intermediates']
    if name.startswith(('encoder', 'decoder', 'shrink'))
  }
  assert maps == {
    'encoder_0': (14, 14, 32),
    'encoder_1': (7, 7, 64),
    'encoder_2': (7, 7, 128),
    'decoder_0': (7, 7, 64),
    'decoder_1': (14, 14, 64),
    'decoder_2': (28, 28, 4),
    'shrink': (28, 28, 1),
  }


def test_pixel_shuffle_sets_each_group_of_four_as_a_square():
  x = jnp.arange(8.0).reshape(1, 1, 2, 4)
  shuffled = vae.pixel_shuffle(x)[0, :, :, 0]
  np.testing.assert_array_equal(shuffled, [[0, 1, 4, 5], [2, 3, 6, 7]])


def test_images_that_cannot_be_halved_twice_are_refused():
  net = vae.ResidualVAE((30, 28, 1), 2, 4)
  with pytest.raises(core.BadInput, match='30x28 is no multiple of 4'):
    net.init(jax.random.key(0), jnp.zeros((1, 30, 28, 1)), jnp.zeros((1, 2)))


@pytest.mark.parametrize(
  'outputs, y, expected',
  [
    ([1, 1, 0, 0, 2, 2], [0, 0, 1, 1, 2, 2], [1, 0, 2]),
    # Class 1 has output 0 three times and gets it; class 0 takes another.
    ([0, 0, 0, 0, 0, 2], [0, 0, 1, 1, 1, 2], [1, 0, 2]),
    # One output for everything: the fullest class has it.
    ([1, 1, 1, 1, 1, 1], [0, 0, 0, 1, 2, 2], [1, 0, 2]),
  ],
)
def test_outputs_are_named_greedily(outputs, y, expected):
  names = udl_original.greedy(jnp.array(outputs), jnp.array(y), 3)
  assert names.tolist() == expected


def test_names_are_always_a_permutation():
  rng = np.random.default_rng(0)
  name = jax.jit(lambda a, y: udl_original.greedy(a, y, 4))
  for _ in range(50):
    order = name(rng.integers(0, 4, 16), rng.integers(0, 4, 16))
    assert sorted(np.asarray(order)) == [0, 1, 2, 3]


@pytest.mark.slow
def test_labels_of_the_support_change_nothing_and_noise_pools_do():
  data = episode(3, 8)
  learner = make()
  params = jax.jit(learner.init)(jax.random.key(0), data)
  run = lambda learner: jax.jit(functools.partial(learner.adapt, train=False))
  key = jax.random.key(2)
  task = run(learner)(params, data.support, key)
  other = data.support._replace(y=(data.support.y + 1) % 3)
  again = run(learner)(params, other, key)
  for a, b in zip(jax.tree.leaves(task), jax.tree.leaves(again)):
    np.testing.assert_array_equal(a, b)
  noisy = make(
    conditioning='noise',
  )
  blind = run(noisy)(params, data.support, key)
  gap = max(
    float(jnp.abs(a - b).max())
    for a, b in zip(jax.tree.leaves(task), jax.tree.leaves(blind))
  )
  assert gap > 1e-6


@pytest.mark.slow
def test_steps_change_the_generated_target_and_none_leave_it():
  data = episode(3, 8)
  learner = make(
    inner_rate=0.5,
  )
  params = jax.jit(learner.init)(jax.random.key(0), data)
  metrics = jax.jit(learner.evaluate)(params, data, jax.random.key(1))
  assert float(metrics['nll']) != float(metrics['nll_unadapted'])
  none = make(
    inner_steps=0,
  )
  metrics = jax.jit(none.evaluate)(params, data, jax.random.key(1))
  for name in ('accuracy', 'nll', 'ari', 'accuracy_legacy'):
    assert metrics[name] == metrics[f'{name}_unadapted']


@pytest.mark.slow
def test_the_noise_control_is_the_accuracy_after_steps_on_noise():
  key, rng = jax.random.key(1), np.random.default_rng(0)
  draw = lambda rows: jnp.asarray(
    np.kron(rng.random((rows, 2, 2, 1)), np.ones((1, 4, 4, 1))), jnp.float32
  )
  support = core.Examples(draw(12), jnp.full((12,), -1))
  x = draw(150)
  learner, none = make(inner_rate=0.5), make(inner_steps=0)
  data = core.Episode(support, core.Examples(x, jnp.zeros(150, int)))
  params = guidance.random_params(learner, data)
  predict = jax.jit(learner.predict)

  def logits(learner, context=None):
    part = support._replace(context=context)
    adapt = jax.jit(functools.partial(learner.adapt, train=False))
    task = adapt(params, part, key)
    return [np.asarray(predict(params, task, z, None)) for z in (support.x, x)]

  before = logits(none)
  # Classes are the outputs before all steps, in another order, so that any
  # change is a mistake.
  true, y = (np.array([1, 2, 0])[each.argmax(axis=-1)] for each in before)
  drawn = jax.random.normal(jax.random.fold_in(key, 1), (support.x.size,))
  noise = jnp.clip(0.5 + 0.5 * drawn, 0, 1).reshape(support.x.shape)
  accuracies = [
    by_hand.named_accuracy(one, true, other, y)
    for one, other in (
      before,
      logits(learner),
      logits(learner, {'inner': noise}),
    )
  ]
  query = data.query._replace(y=y)
  data = core.Episode(support, query, {'unlabelled_y': jnp.asarray(true)})
  metrics = jax.jit(learner.evaluate)(params, data, key)
  unadapted, adapted, placebo = accuracies
  expected = {
    'accuracy_unadapted': unadapted,
    'accuracy': adapted,
    'accuracy_placebo': placebo,
    'gain_step': adapted - unadapted,
    'gain_data': adapted - placebo,
  }
  for name, value in expected.items():
    np.testing.assert_allclose(metrics[name], value, atol=1e-6, err_msg=name)
  assert len(set(accuracies)) == 3


@pytest.mark.parametrize(
  'changes, message',
  [
    ({'conditioning': 'pixel'}, 'conditioning = .*pixel'),
    ({'rows': 0}, 'rows = 0'),
    ({'hidden': ()}, 'at least one layer'),
    ({'inner_rate': 0.0}, 'inner_rate = 0.0'),
  ],
)
def test_illegal_hyperparameters_are_refused(changes, message):
  with pytest.raises(ValueError, match=message):
    udl_original.Config(way=4, **changes)
