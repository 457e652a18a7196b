"""What several parts of `udl` see of the support is computed once."""

import jax
import numpy as np
import pytest

from hyperudl.benchmark import flops
from hyperudl.learners import hyperldm_film
from hyperudl.learners.udl import hypernetwork
from hyperudl.learners.udl import inner_loop
from tests.testing import tiny_sizes
from tests.testing import udl


def loss_of(learner):
  data = udl.episode()
  hidden = {'unlabelled_y': data.query.y[: (data.support.y < 0).sum()]}
  data = data._replace(extra=hidden)
  params = udl.fresh(learner)
  own = {k: v for k, v in params.items() if k != 'frozen'}

  def loss(own):
    return learner.loss({**params, **own}, data, jax.random.key(2), 0)[0]

  return jax.value_and_grad(loss), own


def in_passes_of_their_own(monkeypatch):
  monkeypatch.setattr(inner_loop, '_as_is', lambda view, support: False)


@pytest.mark.parametrize(
  'changes',
  [
    {'norm': 'domain', 'ssl': 'geometry+byol'},
    pytest.param(
      {'norm': 'layer', 'adapt': 'tokens', 'gate': 'predictions'},
      marks=pytest.mark.slow,
    ),
    {'norm': 'domain', 'setting': 'clusters', 'cluster': 2},
  ],
)
def test_the_loss_is_that_of_passes_of_their_own(changes, monkeypatch):
  learner = udl.tiny_udl(**changes)
  loss, own = loss_of(learner)
  shared, shared_slopes = jax.jit(loss)(own)
  in_passes_of_their_own(monkeypatch)
  apart, slopes = jax.jit(lambda own: loss(own))(own)
  np.testing.assert_allclose(shared, apart, rtol=1e-5)
  for a, b in zip(jax.tree.leaves(shared_slopes), jax.tree.leaves(slopes)):
    np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)


def test_an_update_computes_less_by_it(monkeypatch):
  """Counted before XLA merges equal passes, whose gradients it does not."""
  loss, own = loss_of(udl.tiny_udl(norm='domain'))
  shared = flops.count(loss, own)
  in_passes_of_their_own(monkeypatch)
  assert shared < 0.85 * flops.count(lambda own: loss(own), own)


@pytest.mark.parametrize('cond', [False, True])
def test_queries_are_normalised_as_by_a_pass_of_the_reference(cond):
  """After steps too; with other images for the generator, by those."""
  learner = udl.tiny_udl(norm='domain')
  context = {'cond': udl.episode().query.x[:3]} if cond else None
  data = udl.episode(context=context)
  adapt, _ = udl.compiled(learner)
  task = adapt(udl.fresh(learner), data.support, jax.random.key(1))
  writer = hypernetwork.make_writer(udl.WAY, norm='domain', **tiny_sizes.UDL)
  reference = hypernetwork.reference_of(data.support)
  expected = hypernetwork.statistics(writer, task['weights'], reference)
  for a, b in zip(
    jax.tree.leaves(task['statistics']), jax.tree.leaves(expected)
  ):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
  assert set(task) == {'weights', 'head', 'statistics'}


def test_other_weights_are_normalised_by_what_they_make_of_the_reference():
  sizes = tiny_sizes.TINY['hyperldm_film']
  settings = hyperldm_film.settings_of(udl.WAY, **sizes)
  learner = hyperldm_film.make(udl.WAY, **sizes)
  params, support = udl.fresh(learner), udl.episode().support
  task = inner_loop.written(settings.udl, params, support)
  assert 'seen' not in hyperldm_film._written(settings, params, support)[0]
  new = jax.tree.map(lambda leaf: 1.5 * leaf + 0.1, task['weights'])
  found = inner_loop.settled(
    settings.udl, inner_loop.replaced(task, weights=new)
  )['statistics']
  old = inner_loop.settled(settings.udl, task)['statistics']
  expected = hypernetwork.statistics(
    settings.udl.writer, new, hypernetwork.reference_of(support)
  )
  for a, b, c in zip(*map(jax.tree.leaves, (found, expected, old))):
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    assert np.abs(a - c).max() > 1e-3
