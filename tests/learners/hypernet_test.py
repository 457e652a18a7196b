"""Networks with language whose weights are decoded from a latent."""

import functools

import jax
from jax.flatten_util import ravel_pytree
import jax.numpy as jnp
import numpy as np
import pytest

from configs import hypernet as hypernet_config
from hyperudl import core
from hyperudl.data import episodes
from hyperudl.learners import hypernet
from hyperudl.learners._language import hypernetwork
from hyperudl.training import episode_batching
from hyperudl.training import optimizers
from hyperudl.training import train_step
from tests.testing import by_hand
from tests.testing import errors
from tests.testing import example
from tests.testing import guidance
from tests.testing import laws
from tests.testing import tiny_sizes

LAWS = {
  'hypernet': laws.Laws(
    slow='compiling and training it takes too long for every run'
  )
}

WAY = 3


@functools.cache
def case(kind, **changes):
  settings = {**tiny_sizes.HYPERNET, 'kind': kind, **changes}
  learner = hypernet.make(hypernet.Config(WAY, **settings))
  config = hypernet_config.get_config().unlock()
  config.episode.update({'way': WAY, 'shot': 3, 'query': 3})
  draw = episodes.make_draw(config, example.example_tasks(0), train=True)
  batch = draw(episodes.train_keys(0, 0, 4))
  return learner, config, draw, batch


@pytest.mark.parametrize('kind', hypernetwork.KINDS)
def test_every_kind_learns_and_reads_labels_or_questions_as_documented(kind):
  learner, config, _, batch = case(kind)
  episode = jax.tree.map(lambda leaf: leaf[0], batch)
  optimizer = optimizers.make_optimizer(config.optimizer, 40)
  state = train_step.init_state(learner, optimizer, jax.random.key(0), episode)
  step = train_step.make_train_step(
    learner, optimizer, episode_batching.Batching('vmap')
  )
  keys = jax.random.split(jax.random.key(1), 4)
  losses = []
  for _ in range(40):
    state, metrics = step(state, batch, keys)
    losses.append(float(metrics['loss']))
  assert losses[-1] < losses[0] - 0.02
  params, support = state.params, episode.support
  logits = lambda support: learner.predict(
    params,
    learner.adapt(params, support, keys[0], train=False),
    episode.query.x,
    None,
  )
  original = logits(support)
  swapped = logits(support._replace(y=(support.y + 1) % WAY))
  reads_labels = kind in ('autodecoder', 'maml', 'conditional', 'weights')
  assert bool((original != swapped).any()) == reads_labels
  asked = {**support.context, 'question': support.context['question'] + 1}
  other = logits(support._replace(context=asked))
  assert bool((original != other).any()) == (kind in ('conditional', 'film'))


@pytest.mark.parametrize('kind', ['conditional', 'weights'])
def test_the_start_is_measured_as_without_inner_steps(kind):
  learner, _, _, batch = case(kind, inner_rate=0.5)
  start, *_ = case(kind, inner_steps=0)
  params = guidance.random_params(learner, guidance.first(batch))
  key, query = jax.random.key(0), batch.query
  evaluate = jax.jit(jax.vmap(lambda e: learner.evaluate(params, e, key)))
  metrics = evaluate(batch)
  for suffix, each in (('', learner), ('_start', start)):
    tasks = guidance.adapt_all(each, params, batch.support)
    logits = guidance.logits_of(learner, params, tasks, query.x)
    for i, y in enumerate(query.y):
      accuracy = by_hand.accuracy(logits[i], y)
      nll = by_hand.cross_entropy(logits[i], y)
      np.testing.assert_allclose(metrics[f'accuracy{suffix}'][i], accuracy)
      np.testing.assert_allclose(metrics[f'nll{suffix}'][i], nll, rtol=1e-3)
  assert (metrics['accuracy'] != metrics['accuracy_start']).any()


@pytest.mark.slow
def test_first_order_drops_a_part_of_the_gradient():
  grads = []
  for meta_grad in hypernetwork.META_GRADS:
    learner, _, _, batch = case('maml', meta_grad=meta_grad)
    episode = jax.tree.map(lambda leaf: leaf[0], batch)
    params = learner.init(jax.random.key(0), episode)
    key = jax.random.key(1)
    loss = lambda p: learner.loss(p, episode, key, 0)[0]
    grads.append(ravel_pytree(jax.grad(loss)(params)['decoder'])[0])
  assert float(jnp.abs(grads[0] - grads[1]).max()) > 1e-6


def test_precomputed_features_need_no_towers():
  learner, _, _, batch = case('autodecoder', width=7)
  episode = jax.tree.map(lambda leaf: leaf[0], batch)
  random = lambda *shape: jax.random.normal(jax.random.key(3), shape)
  context = {
    'question': random(7),
    'answers': random(WAY, 7),
    'mask': jnp.ones(WAY),
  }
  as_features = lambda e: core.Examples(random(e.y.shape[0], 7), e.y, context)
  episode = episode._replace(
    support=as_features(episode.support), query=as_features(episode.query)
  )
  params = learner.init(jax.random.key(0), episode)
  assert set(params['frozen']['contrastive']) == {'log_scale'}
  assert jnp.isfinite(learner.loss(params, episode, jax.random.key(0), 0)[0])


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({'kind': 'best'}, "kind = 'best' is none of autodecoder, maml"),
    ({'target': 'mlp'}, "target = 'mlp' is none of adapter, head, convnet"),
    ({'kind': 'film', 'target': 'head'}, "set target = 'adapter', not 'head'"),
    ({'channels': ()}, 'channels = (): expected one number or more'),
    ({'inner_rate': 0.0}, 'inner_rate = 0.0 must be above 0'),
    ({'vocabulary': 0}, 'vocabulary = 0 is below its minimum 1'),
    ({'scale': -1.0}, 'scale = -1.0 must be above 0'),
  ],
)
def test_a_wrong_choice_is_refused(options, message):
  settings = {**tiny_sizes.HYPERNET, **options}
  assert message in errors.refusal(hypernet.Config, WAY, **settings)


def test_a_task_without_words_is_refused_with_advice():
  learner, _, _, batch = case('autodecoder')
  episode = jax.tree.map(lambda leaf: leaf[0], batch)
  bare = episode.support._replace(context=None)
  with pytest.raises(ValueError, match=r'data\.dataset=glyphvqa'):
    learner.init(jax.random.key(0), episode._replace(support=bare))
