"""What several parts of `udl` see of the support is computed once."""

import jax
import numpy as np
import pytest

from hyperudl import flops
from hyperudl import refining
from hyperudl import writing
from hyperudl.learners import hyperldm_film
from tests import sizes_helper
from tests import udl_helper


def loss_of(learner):
  data = udl_helper.episode()
  hidden = {'unlabelled_y': data.query.y[: (data.support.y < 0).sum()]}
  data = data._replace(extra=hidden)
  params = udl_helper.fresh(learner)
  own = {k: v for k, v in params.items() if k != 'frozen'}

  def loss(own):
    return learner.loss({**params, **own}, data, jax.random.key(2), 0)[0]

  return jax.value_and_grad(loss), own


def in_passes_of_their_own(monkeypatch):
  monkeypatch.setattr(refining, '_as_is', lambda view, support: False)


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
  learner = udl_helper.tiny_udl(**changes)
  loss, own = loss_of(learner)
  shared, shared_slopes = jax.jit(loss)(own)
  in_passes_of_their_own(monkeypatch)
  apart, slopes = jax.jit(lambda own: loss(own))(own)
  np.testing.assert_allclose(shared, apart, rtol=1e-5)
  for a, b in zip(jax.tree.leaves(shared_slopes), jax.tree.leaves(slopes)):
    np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)


def test_an_update_computes_less_by_it(monkeypatch):
  """Counted before XLA merges equal passes, whose gradients it does not."""
  loss, own = loss_of(udl_helper.tiny_udl(norm='domain'))
  shared = flops.count(loss, own)
  in_passes_of_their_own(monkeypatch)
  assert shared < 0.85 * flops.count(lambda own: loss(own), own)


@pytest.mark.parametrize('cond', [False, True])
def test_queries_are_normalised_as_by_a_pass_of_the_reference(cond):
  """After steps too; with other images for the generator, by those."""
  learner = udl_helper.tiny_udl(norm='domain')
  context = {'cond': udl_helper.episode().query.x[:3]} if cond else None
  data = udl_helper.episode(context=context)
  adapt, _ = udl_helper.compiled(learner)
  task = adapt(udl_helper.fresh(learner), data.support, jax.random.key(1))
  writer = writing.make_writer(
    udl_helper.WAY, norm='domain', **sizes_helper.UDL
  )
  reference = writing.reference_of(data.support)
  expected = writing.statistics(writer, task['weights'], reference)
  for a, b in zip(
    jax.tree.leaves(task['statistics']), jax.tree.leaves(expected)
  ):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
  assert set(task) == {'weights', 'head', 'statistics'}


def test_other_weights_are_normalised_by_what_they_make_of_the_reference():
  sizes = sizes_helper.TINY['hyperldm_film']
  settings = hyperldm_film.settings_of(udl_helper.WAY, **sizes)
  learner = hyperldm_film.make(udl_helper.WAY, **sizes)
  params, support = udl_helper.fresh(learner), udl_helper.episode().support
  task = refining.written(settings.udl, params, support)
  assert 'seen' not in hyperldm_film._written(settings, params, support)[0]
  new = jax.tree.map(lambda leaf: 1.5 * leaf + 0.1, task['weights'])
  found = refining.settled(settings.udl, refining.replaced(task, weights=new))[
    'statistics'
  ]
  old = refining.settled(settings.udl, task)['statistics']
  expected = writing.statistics(
    settings.udl.writer, new, writing.reference_of(support)
  )
  for a, b, c in zip(*map(jax.tree.leaves, (found, expected, old))):
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    assert np.abs(a - c).max() > 1e-3
