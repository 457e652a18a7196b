"""Learners on features: protonet, its gate, the head of MAML, and refusals.

Guards: learners/__init__.py.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hyperudl import core
from hyperudl import learners
from tests.testing import errors

WAY, SIZE = 3, 5
RNG = np.random.default_rng(0)


def episode_of(unlabelled=4):
  y = np.append(np.tile(np.arange(WAY), 2), np.full(unlabelled, -1))
  rows = lambda count: jnp.float32(RNG.normal(size=(count, SIZE)))
  query = core.Examples(rows(6), jnp.tile(jnp.arange(WAY), 2))
  return core.Episode(core.Examples(rows(len(y)), jnp.asarray(y)), query)


def outputs(name, episode, **settings):
  """(parameters, logits of the queries, gradient of the outer loss)."""
  learner = learners.make(name, WAY, settings)
  params = learner.init(jax.random.key(0), episode)
  task = learner.adapt(params, episode.support, jax.random.key(1), train=False)
  logits = learner.predict(params, task, episode.query.x, None)
  loss = lambda params: learner.loss(params, episode, jax.random.key(1), 0)[0]
  return params, np.asarray(logits), jax.grad(loss)(params)


def test_protonet_without_layers_is_the_nearest_mean_of_the_features():
  episode = episode_of()
  _, logits, _ = outputs('protonet', episode, scale=2.0)
  x, y = np.asarray(episode.support.x), np.asarray(episode.support.y)
  means = np.stack([x[y == c].mean(axis=0) for c in range(WAY)])
  gaps = np.asarray(episode.query.x)[:, None] - means
  np.testing.assert_allclose(logits, -2 * (gaps**2).sum(2), rtol=1e-4)


def test_protonet_by_cosine_is_centred_and_an_mlp_is_trained():
  episode = episode_of()
  params, _, gradient = outputs(
    'protonet', episode, distance='cosine', widths=(4, 3)
  )
  assert [layer['kernel'].shape for layer in params['net']['layers']] == [
    (SIZE, 4),
    (4, 3),
  ]
  center = np.asarray(episode.support.x).mean(axis=0)
  np.testing.assert_allclose(params['net']['center'], center, atol=1e-6)
  assert all(jnp.abs(leaf).max() > 0 for leaf in jax.tree.leaves(gradient))


def test_a_closed_gate_leaves_the_class_means_and_an_open_one_is_refine():
  episode = episode_of()
  learner = learners.make(
    'protonet', WAY, {'refine': 2, 'gate': True, 'scale': 0.5}
  )
  params = learner.init(jax.random.key(0), episode)
  adapt = lambda bias: np.asarray(
    learner.adapt(
      {**params, 'gate': {**params['gate'], 'last': bias}},
      *(episode.support, None),
      train=False,
    )
  )
  last = params['gate']['last']
  # sigmoid(1) of the second output is the factor 1 of the scale.
  closed, opened = (
    adapt({**last, 'bias': jnp.array([mass, 1.0])}) for mass in (-40.0, 40.0)
  )
  plain = learners.make('protonet', WAY, {'refine': 2, 'scale': 0.5})
  refined = plain.adapt(params, episode.support, None, train=False)
  np.testing.assert_allclose(opened, refined, rtol=1e-3, atol=1e-5)
  means = learners.make('protonet', WAY, {}).adapt(
    params, episode.support, None, train=False
  )
  np.testing.assert_allclose(closed, means, atol=1e-6)
  assert np.abs(opened - closed).max() > 0.05


@pytest.mark.slow
def test_the_outer_loss_trains_the_gate():
  settings = {'refine': 1, 'gate': True, 'scale': 0.5}
  _, _, gradient = outputs('protonet', episode_of(), **settings)
  assert jnp.abs(gradient['gate']['last']['bias']).min() > 0


@pytest.mark.parametrize('scope', ['all', 'head'])
def test_maml_adapts_its_last_layer_by_the_formula(scope):
  episode = episode_of(unlabelled=0)
  settings = {'scope': scope, 'inner_steps': 3, 'inner_rate': 0.3}
  params, logits, gradient = outputs('maml', episode, **settings)
  assert set(params['net']) == {'head'}
  with_one = lambda x: np.c_[np.float64(x), np.ones(len(x))]
  x = with_one(episode.support.x)
  head = params['net']['head']
  w = np.concatenate([head['kernel'], np.asarray(head['bias'])[None]])
  target = np.eye(WAY)[np.asarray(episode.support.y)]
  for _ in range(3):
    p = np.exp(x @ w) / np.exp(x @ w).sum(axis=1, keepdims=True)
    w = w - 0.3 * x.T @ (p - target) / len(x)
  query = np.pad(
    np.asarray(episode.query.x), ((0, 0), (0, 1)), constant_values=1
  )
  np.testing.assert_allclose(logits, query @ w, rtol=1e-3, atol=1e-4)
  assert jnp.abs(gradient['net']['head']['kernel']).max() > 0


def test_what_features_cannot_have_is_refused():
  with pytest.raises(ValueError, match='features pass no norms'):
    outputs('maml', episode_of(), step_norms=True)
  with pytest.raises(core.BadInput, match='set refine >= 1'):
    learners.make('protonet', WAY, {'gate': True})
  for name in ('udl', 'hypertransformer', 'vae', 'hallucination'):
    message = errors.refusal(learners.check_features, name)
    assert message.endswith('baseline and caml and maml and protonet take them')
    assert f'learner {name!r} needs images' in message
  for name in ('baseline', 'caml', 'maml', 'protonet'):
    learners.check_features(name)
