"""What a run is made of: its config, its data and its frozen encoder."""

from flax import linen as nn
import jax
import numpy as np
import pytest

from configs import contrastive
from configs import hyperclip
from configs import hypernet
from hyperudl.core import config as config_lib
from hyperudl.data import episodes
from hyperudl.training import setup
from tests.testing import tiny_sizes
from tests.testing.errors import refusal


def config_of(name):
  module = {'hypernet': hypernet, 'hyperclip': hyperclip}[name]
  config = module.get_config('set=tiny').unlock()
  config.batch = 2
  if name == 'hyperclip':
    config.episode.tasks = 3
  small = {**tiny_sizes.HVAE, 'vocabulary': 64, 'length': 32}
  config.learner.update({k: v for k, v in small.items() if k in config.learner})
  return config


def prepare(config):
  """(components, initial parameters) of a run."""
  components = setup.prepare(config)
  return components, setup.initial_state(config, components).params


@pytest.mark.parametrize(
  'name, kind',
  [
    pytest.param('hypernet', 'autodecoder', marks=pytest.mark.slow),
    ('hyperclip', 'maml'),
  ],
)
def test_an_encoded_set_gives_the_loss_of_its_images(name, kind):
  config = config_of(name)
  config.learner.kind = kind
  components, params = prepare(config)
  # As a checkpoint brings them.
  encoded = setup.encode_once(config, components, jax.device_get(params))
  keys = episodes.train_keys(0, 5, 1)
  images, features = (
    jax.tree.map(lambda leaf: leaf[0], each.draw(keys))
    for each in (components, encoded)
  )
  assert images.query.x.ndim > features.query.x.ndim
  np.testing.assert_array_equal(images.query.y, features.query.y)
  grad = jax.value_and_grad(components.learner.loss, has_aux=True)
  (loss, _), one = grad(params, images, keys[0], 0)
  (encoded_loss, _), other = grad(params, features, keys[0], 0)
  np.testing.assert_allclose(encoded_loss, loss, rtol=1e-5)
  for part in one.keys() - {'frozen'}:
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5),
      one[part],
      other[part],
    )


def test_the_encoder_works_at_the_precision_of_the_config():
  config = config_of('hypernet')
  components, params = prepare(config)
  precisions = []

  def spy(call, args, kwargs, context):
    del context
    precisions.append(jax.config.jax_default_matmul_precision)
    return call(*args, **kwargs)

  for precision in ('float32', 'tensorfloat32'):
    config.matmul_precision = precision
    with nn.intercept_methods(spy):
      setup.encode_once(config, components, params)
    assert set(precisions) == {precision}
    precisions.clear()


def test_learners_that_need_pixels_keep_them():
  config = config_of('hypernet')
  config.learner.target = 'convnet'
  encoder = contrastive.get_config('set=tiny').unlock()
  for each in (config, encoder):
    components, params = prepare(each)
    assert setup.encode_once(each, components, params) is components


def test_a_folder_of_another_run_is_refused_with_the_fields_that_differ(
  tmp_path,
):
  config = config_of('hypernet')
  setup.check_workdir(config, tmp_path / 'new')
  (tmp_path / 'config.json').write_text(config_lib.to_json(config))
  assert setup.read_config(tmp_path).to_dict() == config.to_dict()
  config.log_steps, config.eval.episodes, config.data.dir = 7, 9, 'elsewhere'
  setup.check_workdir(config, tmp_path)
  config.seed = 5
  message = refusal(setup.check_workdir, config, tmp_path)
  assert 'a run of another config (seed: 0 -> 5); use another' in message
  message = refusal(setup.check_workdir, config, tmp_path / 'config.json')
  assert 'is a file; name a folder' in message


def test_a_folder_without_a_readable_config_is_refused(tmp_path):
  assert 'no run in' in refusal(setup.read_config, tmp_path)
  (tmp_path / 'config.json').write_text('{"seed": ')
  assert 'restore it or delete it' in refusal(setup.read_config, tmp_path)
