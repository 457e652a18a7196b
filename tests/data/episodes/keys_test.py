"""Keys of episodes: one for each place in training and evaluation."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import protonet
from hyperudl import core
from hyperudl.core import config as config_lib
from hyperudl.data.episodes import keys


def test_keys_depend_on_seed_stream_and_place():
  data = lambda key: [tuple(k) for k in np.asarray(jax.random.key_data(key))]
  first = data(keys.train_keys(0, 0, 4))
  assert data(keys.train_keys(0, 0, 9))[:4] == first
  fixed = data(keys.eval_keys('test', 0, 10))
  assert data(keys.eval_keys('test', 6, 4)) == fixed[6:]
  streams = [
    first,
    fixed,
    data(keys.train_keys(0, 1, 4)),
    data(keys.train_keys(1, 0, 4)),
    data(keys.train_keys(2023, 0, 4)),
    data(keys.eval_keys('valid', 0, 10)),
    data(keys.eval_keys('train', 0, 10)),
    data(keys.eval_keys('all', 0, 10)),
  ]
  assert len(set(itertools.chain(*streams))) == sum(map(len, streams))
  traced = jax.jit(lambda step: keys.train_keys(0, step, 4))(jnp.int32(0))
  assert data(traced) == first
  with pytest.raises(core.BadInput, match="'dev': choose one of train, valid"):
    keys.eval_keys('dev', 0, 1)


def test_seeds_that_a_config_allows_give_different_keys():
  seeds = [0, 1, 2**31 - 1, 2**31, 2**31 + 1, 2**32 - 1]
  config = protonet.get_config().unlock()
  found = set()
  for seed in seeds:
    config.seed = seed
    config_lib.validate(config)
    data = jax.random.key_data(keys.train_keys(seed, 0, 1))
    found.add(tuple(np.asarray(data)[0]))
  assert len(found) == len(seeds)
  config.seed = 2**32  # the key of seed 0
  with pytest.raises(core.BadInput, match='seed = 4294967296 must be below'):
    config_lib.validate(config)
