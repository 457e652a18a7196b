"""What a frozen encoder sees once, and not in every update."""

from flax import linen as nn
import jax
import numpy as np
import pytest

from configs import contrastive
from configs import hyperclip
from configs import hypernet
from hyperudl.data import episodes
from hyperudl.training import setup
from tests.testing import tiny_sizes


def config_of(name):
  module = {'hypernet': hypernet, 'hyperclip': hyperclip}[name]
  config = module.get_config('set=tiny').unlock()
  config.batch = 2
  if name == 'hyperclip':
    config.episode.tasks = 3
  small = {**tiny_sizes.HVAE, 'vocabulary': 64, 'length': 32}
  config.learner.update({k: v for k, v in small.items() if k in config.learner})
  return config


@pytest.mark.parametrize(
  'name, kind',
  [('hypernet', 'autodecoder'), ('hyperclip', 'maml')],
)
def test_an_encoded_set_gives_the_loss_of_its_images(name, kind):
  config = config_of(name)
  config.learner.kind = kind
  prepared = setup.prepare(config)
  params = setup.initial_state(config, prepared).params
  # As a checkpoint brings them.
  encoded = setup.encoded(config, prepared, jax.device_get(params))
  keys = episodes.train_keys(0, 5, 1)
  seen = [
    jax.tree.map(lambda leaf: leaf[0], p.draw(keys))
    for p in (prepared, encoded)
  ]
  assert seen[0].query.x.ndim > seen[1].query.x.ndim
  np.testing.assert_array_equal(seen[0].query.y, seen[1].query.y)
  grad = jax.value_and_grad(prepared.learner.loss, has_aux=True)
  (pixels, _), one = grad(params, seen[0], keys[0], 0)
  (features, _), other = grad(params, seen[1], keys[0], 0)
  np.testing.assert_allclose(features, pixels, rtol=1e-5)
  for part in one.keys() - {'frozen'}:
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5),
      one[part],
      other[part],
    )


def test_the_encoder_works_at_the_precision_of_the_config():
  config = config_of('hypernet')
  prepared = setup.prepare(config)
  params = setup.initial_state(config, prepared).params
  seen = []

  def spy(call, args, kwargs, context):
    del context
    seen.append(jax.config.jax_default_matmul_precision)
    return call(*args, **kwargs)

  for precision in ('float32', 'tensorfloat32'):
    config.matmul_precision = precision
    with nn.intercept_methods(spy):
      setup.encoded(config, prepared, params)
    assert set(seen) == {precision}
    seen.clear()


def test_what_needs_pixels_keeps_them():
  config = config_of('hypernet')
  config.learner.target = 'convnet'
  prepared = setup.prepare(config)
  params = setup.initial_state(config, prepared).params
  assert setup.encoded(config, prepared, params) is prepared
  encoder = contrastive.get_config('set=tiny').unlock()
  prepared = setup.prepare(encoder)
  params = setup.initial_state(encoder, prepared).params
  assert setup.encoded(encoder, prepared, params) is prepared
