"""What the README shows works as shown."""

import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np

from hyperudl import core
from hyperudl.core import config as config_lib

README = pathlib.Path(__file__).parents[2] / 'README.md'


def blocks():
  return re.findall(r'```python\n(.*?)```', README.read_text(), re.S)


def test_the_learner_and_the_config_of_the_readme_run():
  learner_code, config_code = blocks()
  module, config_module = {}, {}
  exec(compile(learner_code, 'nearest.py', 'exec'), module)
  exec(compile(config_code, 'nearest_config.py', 'exec'), config_module)
  config = config_module['get_config']('glyphs,way=3')
  config_lib.validate(config)
  settings = config_lib.learner_settings(config)
  assert config.learner.name == 'nearest'
  learner = module['make'](config.episode.way, **settings)
  x = jnp.asarray(np.random.default_rng(0).uniform(size=(6, 4, 4, 1)))
  y = jnp.array([0, 1, 2, 0, 1, -1])
  episode = core.Episode(core.Examples(x, y), core.Examples(x[:3], y[:3]))
  params = learner.init(jax.random.key(0), episode)
  value, metrics = learner.loss(params, episode, jax.random.key(1), 0)
  assert jnp.isfinite(value)
  assert metrics['accuracy'] == 1.0


def test_every_file_and_module_that_the_readme_names_exists():
  text = README.read_text()
  root = README.parent
  for path in re.findall(r'(?:launch|configs|docs)/[\w/]+\.(?:sh|py|md)', text):
    assert (root / path).exists() or 'nearest' in path, path
  for module in re.findall(r'python -m (hyperudl[\w.]*)', text):
    assert (root / (module.replace('.', '/') + '.py')).exists(), module
