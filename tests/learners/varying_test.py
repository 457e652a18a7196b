"""Rows without an image have no influence, and absent classes no probability.

Guards: core/types.py.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hyperudl import core
from hyperudl import learners
from hyperudl.ops import losses
from tests.testing import tiny_sizes

WAY = 5  # of the learner
CLASSES = (0, 2, 4)  # of the episode
PRESENT = np.array(CLASSES)
SHIFT = {
  **{'adapt': 'shift+head', 'elbo': 'shift', 'ssl': 'none', 'blend': True},
  **{'critic': 'predictions', 'inner_steps': 1, 'shift_start': 'identity'},
}
FILM = {'inner_steps': 1, 'ssl': 'byol+mixture+certainty', 'inner_norm': 'clip'}
UDL = {**tiny_sizes.TINY['udl'], 'phase': 'joint'}
HT = tiny_sizes.TINY['hypertransformer']
CASES = {
  'l2': ('protonet', {'channels': (4, 4), 'refine': 2, 'scale': 0.1}),
  'cosine': ('protonet', {'channels': (4, 4), 'distance': 'cosine'}),
  'dot': ('protonet', {'channels': (4, 4), 'distance': 'dot', 'norm': 'group'}),
  'resnet12': ('protonet', {'channels': (4,), 'backbone': 'resnet12'}),
  'caml': ('caml', tiny_sizes.TINY['caml']),
  'base': ('udl', {**UDL, 'phase': 'base'}),
  'learned weights': ('udl', {**UDL, 'phase': 'base', 'emit': 'none'}),
  'shift': ('udl', {**UDL, **SHIFT}),
  'film': ('udl', {**UDL, **FILM}),
  'ht': ('hypertransformer', {**HT, 'head': 'prototypes'}),
  'class weights': ('hypertransformer', {**HT, 'head': 'class_weights'}),
}


def episode(shots=(3, 1, 2), seed=0, order=None):
  """Labelled images, four unlabelled ones, and empty rows last."""
  y = np.repeat([*CLASSES, -1, core.NO_IMAGE], [*shots, 4, 4])
  y = jnp.asarray(y if order is None else y[order])
  keys = jax.random.split(jax.random.key(seed), 2)
  draw = lambda key, n: jax.random.uniform(key, (n, 10, 10, 1))
  x = draw(keys[0], len(y))  # empty rows are noise, to see if they matter
  x = x if order is None else x[order]
  query_y = jnp.array([0, 2, 4, 4, 0, -1, -1])
  query = core.Examples(draw(keys[1], 7), query_y)
  return core.Episode(core.Examples(x, y), query)


def reduced(data):
  """The same episode without empty rows, as one of three classes."""
  rename = {label: number for number, label in enumerate(CLASSES)} | {-1: -1}
  keep = np.asarray(data.support.y) != core.NO_IMAGE
  new = lambda y: jnp.array([rename[int(label)] for label in y])
  support = core.Examples(data.support.x[keep], new(data.support.y[keep]))
  return core.Episode(support, data.query._replace(y=new(data.query.y)))


def without_classes(tree, names=()):
  """Parameters (or gradients) of a learner of three classes, by the names."""
  if not isinstance(tree, dict):
    return tree
  tree = {k: without_classes(v, (*names, k)) for k, v in tree.items()}
  if 'labels' in tree and len(tree['labels']) == WAY + 1:
    tree['labels'] = tree['labels'][np.array([*CLASSES, WAY])]
  if names[-1:] == ('critic',):  # sorted probabilities, then two numbers
    kernel = tree['first']['kernel']
    rows = np.array([*range(len(CLASSES)), WAY, WAY + 1])
    tree['first'] = {**tree['first'], 'kernel': kernel[rows]}
  return tree


@functools.cache
def params_of(case):
  """Random parameters: at their initial values some gradients are zero."""
  name, settings = CASES[case]
  learner = learners.make(name, WAY, settings, varies=True)
  shapes = jax.eval_shape(learner.init, jax.random.key(0), episode())
  rng = np.random.default_rng(0)
  draw = lambda leaf: jnp.float32(0.3 * rng.normal(size=leaf.shape))
  return jax.tree.map(draw, shapes)


@functools.cache
def programs(case, way, varies):
  """The learner's logits of an episode, and its loss and gradient."""
  name, settings = CASES[case]
  learner = learners.make(name, way, settings, varies=varies)
  key = jax.random.key(1)

  def logits(params, data):
    task = learner.adapt(params, data.support, key, train=False)
    return learner.predict(params, task, data.query.x, None)

  def value_and_grad(params, data):
    frozen = {k: v for k, v in params.items() if k == 'frozen'}
    trained = {k: v for k, v in params.items() if k != 'frozen'}
    loss = lambda trained: learner.loss({**trained, **frozen}, data, key, 0)[0]
    return jax.value_and_grad(loss)(trained)

  return jax.jit(logits), jax.jit(value_and_grad)


def compared(case):
  """Programs, parameters and episode of five classes, and of three of them."""
  # `udl` clusters with the number of images of each class: here of all alike.
  data = episode((2, 2, 2)) if case in ('shift', 'film') else episode()
  params = params_of(case)
  whole = programs(case, WAY, True), params, data
  smaller = programs(case, len(CLASSES), False)
  return whole, (smaller, without_classes(params), reduced(data))


def assert_close(got, expected):
  # Sums of other lengths round differently.
  scale = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(expected))
  close = functools.partial(
    np.testing.assert_allclose, rtol=1e-5, atol=1e-5 * scale
  )
  jax.tree.map(close, got, expected)


def slow_but(*quick):
  """All cases, those that take long to compile as slow tests."""
  marks = lambda case: [] if case in quick else [pytest.mark.slow]
  return [pytest.param(case, marks=marks(case)) for case in CASES]


@pytest.mark.parametrize('case', slow_but('l2', 'dot', 'base', 'ht'))
def test_logits_are_as_if_empty_rows_and_absent_classes_were_not_there(case):
  whole, smaller = compared(case)
  got, expected = (run[0](*inputs) for run, *inputs in (whole, smaller))
  assert_close(got[:, PRESENT], expected)
  absent = np.delete(np.asarray(jax.nn.softmax(got)), PRESENT, axis=1)
  assert (absent == 0).all()


@pytest.mark.parametrize('case', slow_but('l2'))
def test_gradients_are_as_if_empty_rows_and_absent_classes_were_not_there(case):
  whole, smaller = compared(case)
  got, expected = (run[1](*inputs) for run, *inputs in (whole, smaller))
  assert_close(got[0], expected[0])
  assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(got[1]))
  assert_close(without_classes(got[1]), expected[1])


@pytest.mark.parametrize('case', ['l2', 'base'])
def test_empty_rows_may_be_anywhere(case):
  params = params_of(case)
  order = np.random.default_rng(3).permutation(14)
  logits, _ = programs(case, WAY, True)
  assert_close(
    logits(params, episode(order=order))[:, PRESENT],
    logits(params, episode())[:, PRESENT],
  )


@pytest.mark.parametrize('encoding', ['random_table', 'equiangular'])
def test_other_names_of_classes_give_the_same_answers_by_these(encoding):
  settings = {**UDL, 'phase': 'base', 'label_encoding': encoding, 'width': 20}
  learner = learners.make('udl', WAY, settings, varies=True)
  data, key = episode(), jax.random.key(0)
  params = jax.jit(learner.init)(key, data)
  rng = np.random.default_rng(0)
  params = jax.tree.map(
    lambda leaf: leaf + 0.1 * rng.normal(size=leaf.shape).astype('f'), params
  )

  @jax.jit
  def logits(y):
    support = data.support._replace(y=y)
    task = learner.adapt(params, support, key, train=False)
    return learner.predict(params, task, data.query.x, None)

  other = jnp.array([3, 0, 1, 4, 2])  # new name of each class
  y = data.support.y
  renamed = logits(jnp.where(y < 0, y, other[y]))
  np.testing.assert_allclose(renamed[:, other], logits(y), rtol=1e-5, atol=1e-5)
  assert float(jnp.std(logits(y)[:, PRESENT])) > 1e-2


def test_a_learner_of_full_episodes_refuses_them():
  with pytest.raises(core.BadInput, match="protonet and udl, not for 'maml'"):
    learners.make('maml', 5, {}, varies=True)
  with pytest.raises(core.BadInput, match="need setting = 'classes'"):
    learners.make('udl', 5, {'setting': 'clusters'}, varies=True)
  with pytest.raises(core.BadInput, match="need head='prototypes'"):
    learners.make('hypertransformer', 5, {}, varies=True)


def test_unscored_queries_do_not_count():
  y = jnp.array([1, -1, 0, -2])
  logits = jnp.array([[0.0, 3.0], [9.0, 0.0], [1.0, 0.0], [5.0, 5.0]])
  assert float(losses.accuracy(logits, y)) == 1
  np.testing.assert_allclose(
    losses.cross_entropy(logits, y),
    losses.cross_entropy(logits[::2], y[::2]),
    rtol=1e-6,
  )
