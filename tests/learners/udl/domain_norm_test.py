"""Statistics of the unlabelled images normalise the queries."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import udl as udl_config
from hyperudl import core
from hyperudl.evaluation import evaluator
from hyperudl.learners import udl
from hyperudl.nets import conv
from hyperudl.ops import normalization
from tests.testing import udl as helper

WAY = helper.WAY


def test_moments_by_loops():
  x = (
    np.random.default_rng(0).normal(size=(5, 4, 3, 2))
    + np.arange(5)[:, None, None, None]
  )
  member = np.eye(2)[[0, 0, 1, 1, 1]]
  part = member * np.array([1, 1, 1, 0, 1])[:, None]
  statistics = normalization.domain_statistics(
    jnp.asarray(x, jnp.float32), jnp.asarray(part)
  )
  mean, variance = normalization.of_rows(statistics, jnp.asarray(member))
  for row, rows in enumerate(([0, 1], [0, 1], [2, 4], [2, 4], [2, 4])):
    chosen = x[rows]
    np.testing.assert_allclose(
      mean[row, 0, 0], chosen.mean(axis=(0, 1, 2)), rtol=1e-5
    )
    np.testing.assert_allclose(
      variance[row, 0, 0], chosen.var(axis=(0, 1, 2)), rtol=1e-4
    )


def test_one_domain_is_batch_norm_and_a_domain_without_images_takes_all():
  x = jax.random.normal(jax.random.key(0), (6, 5, 5, 3))
  wanted = normalization.moments(x, 'batch')
  nobody = jnp.tile(jnp.array([[1.0, 0]]), (6, 1))
  asked = jnp.tile(jnp.array([[0, 1.0]]), (6, 1))
  for member, part in ((nobody, nobody), (asked, nobody)):
    statistics = normalization.domain_statistics(x, part)
    for got, expected in zip(normalization.of_rows(statistics, member), wanted):
      np.testing.assert_allclose(
        got, jnp.broadcast_to(expected, got.shape), atol=1e-5
      )
  block = conv.ConvBlock(4, norm='domain', pool=False)
  params = block.init(jax.random.key(1), x)['params']
  one, batch = block.apply({'params': params}, x), block.clone(norm='batch')
  np.testing.assert_allclose(one, batch.apply({'params': params}, x), atol=1e-5)


@pytest.mark.parametrize('pool', [True, False])
@pytest.mark.parametrize('order', conv.ORDERS)
def test_a_block_normalises_domains_apart(pool, order):
  keys = jax.random.split(jax.random.key(1), 3)
  x = jax.random.normal(keys[0], (7, 6, 6, 2)) * 3
  member = jax.nn.one_hot(jnp.array([0, 0, 0, 1, 1, 1, 1]), 2)
  make = lambda norm: conv.ConvBlock(4, norm=norm, pool=pool, order=order)
  params = make('batch').init(keys[1], x)
  params = jax.tree.map(
    lambda v: v + jax.random.normal(keys[2], v.shape), params
  )
  got = make('domain').apply(params, x, (member, member))
  alone = make('batch').apply
  wanted = jnp.concatenate([alone(params, x[:3]), alone(params, x[3:])])
  np.testing.assert_allclose(got, wanted, atol=1e-4)


def episode_of(unlabelled=4, cond=False):
  keys = jax.random.split(jax.random.key(0), 3)
  y = jnp.concatenate([jnp.arange(WAY), jnp.full(unlabelled, -1)])
  draw = lambda key, rows: jax.random.uniform(key, (rows, 12, 12, 1))
  context = {'cond': draw(keys[2], 5)} if cond else None
  return core.Episode(
    core.Examples(draw(keys[0], len(y)), y, context),
    core.Examples(draw(keys[1], 6), jnp.tile(jnp.arange(WAY), 2)),
  )


def classifier(episode, **settings):
  """Query logits before (K = 0) or after the steps, as a function of x."""
  learner = helper.tiny_udl(norm='domain', **settings)
  params = jax.jit(learner.init)(jax.random.key(1), episode)
  adapt = lambda params: learner.adapt(
    params, episode.support, jax.random.key(2), train=False
  )
  task = jax.jit(adapt)(params)
  predict = jax.jit(lambda x: learner.predict(params, task, x, None))
  return lambda x: np.asarray(predict(x))


@pytest.mark.parametrize(
  'settings, options',
  [
    ({}, {}),
    ({'inner_steps': 0, 'cluster': 0, 'elbo': 'none', 'ssl': 'none'}, {}),
    pytest.param(
      {'adapt': 'film+shift', 'elbo': 'shift'}, {}, marks=pytest.mark.slow
    ),
    pytest.param({}, {'unlabelled': 0}, marks=pytest.mark.slow),
    ({}, {'cond': True}),
  ],
  ids=str,
)
def test_no_query_matters_to_another(settings, options):
  episode = episode_of(**options)
  classify = classifier(episode, **settings)
  together = classify(episode.query.x)
  assert np.isfinite(together).all()
  alone = np.concatenate([classify(x[None]) for x in episode.query.x])
  np.testing.assert_allclose(together, alone, atol=1e-4)


def test_a_shift_of_scale_that_both_share_is_undone():
  # A channel-wise affine map of all unlabelled images and queries changes
  # nothing in the features of a first convolution but their scale.
  episode = episode_of()
  settings = {'inner_steps': 0, 'cluster': 0, 'elbo': 'none', 'ssl': 'none'}
  settings['emit'] = 'none'
  settings['critic'] = 'none'
  dim = lambda x: 0.3 * x
  unlabelled = (episode.support.y < 0)[:, None, None, None]
  support = episode.support
  shifted = support._replace(x=jnp.where(unlabelled, dim(support.x), support.x))
  plain = classifier(episode, **settings)(episode.query.x)
  other = classifier(episode._replace(support=shifted), **settings)
  np.testing.assert_allclose(other(dim(episode.query.x)), plain, atol=0.05)
  assert np.abs(other(episode.query.x) - plain).max() > 0.2


@pytest.mark.slow
@pytest.mark.parametrize('cond', [False, True])
def test_queries_are_classified_as_beside_the_unlabelled_images(cond):
  """One pass of queries and others, where queries are part of no domain."""
  episode = episode_of(cond=cond)
  config = helper.tiny_config(norm='domain', inner_steps=0, cluster=0)
  learner = udl.make(config)
  params = learner.init(jax.random.key(1), episode)
  task = learner.adapt(params, episode.support, jax.random.key(2), train=False)
  logits = learner.predict(params, task, episode.query.x, None)
  support, query = episode.support, episode.query
  y, others = support.y, (support.context or {}).get('cond', support.x[:0])
  # Of the support's -1 rows only where no other images stand for them.
  counted = (y >= 0) | (not cond)
  clean = jnp.concatenate([y >= 0, jnp.zeros(len(others), bool)])
  present = jnp.concatenate([counted, jnp.ones(len(others), bool)])
  sides = lambda flags: jnp.stack([flags, ~flags], axis=1).astype(jnp.float32)
  nobody = jnp.zeros((len(query.y), 2))
  asked = sides(jnp.zeros(len(query.y), bool))
  domains = (
    jnp.concatenate([asked, sides(clean)]),
    jnp.concatenate([nobody, sides(clean) * present[:, None]]),
  )
  net = conv.ConvNet(config.channels, stride=2, pool=False, norm='domain')
  x = jnp.concatenate([query.x, support.x, others])
  features = net.apply({'params': task.weights}, x, domains)
  unit = lambda rows: rows / jnp.linalg.norm(rows, axis=1, keepdims=True)
  scale = jnp.exp(params['log_scale'])
  wanted = scale * unit(features[: len(query.y)]) @ unit(task.prototypes).T
  np.testing.assert_allclose(logits, wanted, rtol=1e-4, atol=1e-4)


def test_queries_may_be_a_domain_of_their_own():
  """The transductive control: batch norm of the queries, clean prototypes."""
  episode = episode_of()
  settings = {'inner_steps': 0, 'cluster': 0}
  config = helper.tiny_config(
    norm='domain', query_statistics='queries', **settings
  )
  learner = udl.make(config)
  params = jax.jit(learner.init)(jax.random.key(1), episode)
  key = jax.random.key(2)
  adapt, predict = helper.compiled(learner)
  task = adapt(params, episode.support, key)
  plain = helper.tiny_udl(norm='domain', **settings)
  task_of_default = helper.compiled(plain)[0](params, episode.support, key)
  # The prototypes are those of the default: labelled images stay apart.
  np.testing.assert_array_equal(task.prototypes, task_of_default.prototypes)
  net = conv.ConvNet(config.channels, stride=2, pool=False, norm='batch')
  features = net.apply({'params': task.weights}, episode.query.x)
  unit = lambda rows: rows / jnp.linalg.norm(rows, axis=1, keepdims=True)
  scale = jnp.exp(params['log_scale'])
  wanted = scale * unit(features) @ unit(task.prototypes).T
  logits = predict(params, task, episode.query.x, None)
  np.testing.assert_allclose(logits, wanted, rtol=1e-4, atol=1e-4)
  with pytest.raises(ValueError, match="needs norm = 'domain'"):
    helper.tiny_config(norm='batch', query_statistics='queries')


@pytest.mark.parametrize(
  'settings, transductive',
  [
    ({}, False),
    ({'norm': 'batch'}, True),
    ({'query_statistics': 'queries'}, True),
  ],
)
def test_results_say_whether_queries_matter_to_each_other(
  settings, transductive
):
  config = udl_config.get_config().unlock()
  config.learner.update(settings)
  assert evaluator.is_transductive(config) == transductive
