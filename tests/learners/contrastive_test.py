"""The image-text encoder: its towers, and its loss over all questions."""

import jax
import jax.numpy as jnp
import numpy as np

from hyperudl import core
from hyperudl.learners import contrastive
from hyperudl.nets import towers
from tests.testing import errors
from tests.testing import laws

LAWS = {
  'contrastive': laws.Laws(
    slow='compiling and training it takes too long for every run'
  )
}

WAY, LENGTH = 3, 4
SIZES = {'vocabulary': 9, 'width': 10, 'hidden': (6,), 'inner': 4}


def episode_of(asked):
  rng = np.random.default_rng(0)
  words = lambda *shape: jnp.asarray(
    rng.integers(1, 9, (*shape, LENGTH)), jnp.int32
  )
  part = lambda rows: core.Examples(
    jnp.asarray(rng.uniform(size=(rows, 4, 4, 1)), jnp.float32),
    jnp.arange(rows) % WAY,
    {'question': words(), 'answers': words(WAY), 'mask': jnp.ones(WAY)},
  )
  support, query = part(3), part(5)
  query = query._replace(context=support.context)
  extra = {}
  if asked:
    extra['asked'] = {
      'answers': words(asked, WAY),
      'mask': jnp.array([[1.0, 1, 0]] * asked),
      'y': jnp.array([[0, 1, -1, -1, 1], [-1, 0, 0, 1, -1]]),
    }
  return core.Episode(support, query, extra)


def test_the_loss_is_the_mean_over_all_pairs_with_an_answer():
  learner = contrastive.make(contrastive.Config(WAY, **SIZES))
  episode = episode_of(asked=2)
  params = learner.init(jax.random.key(0), episode)
  key = jax.random.key(1)
  value, metrics = learner.loss(params, episode, key, 0)
  # Each question separately, as in an evaluation.
  asked = episode.extra['asked']
  questions = [(episode.support.context['answers'], jnp.ones(WAY))]
  questions += list(zip(asked['answers'], asked['mask']))
  losses, hits = [], []
  for (answers, mask), y in zip(questions, [episode.query.y, *asked['y']]):
    context = {**episode.support.context, 'answers': answers, 'mask': mask}
    support = episode.support._replace(context=context)
    task = learner.adapt(params, support, key, train=False)
    logits = learner.predict(params, task, episode.query.x, None)
    p = np.asarray(jax.nn.softmax(logits))
    for row, label in enumerate(np.asarray(y)):
      if label >= 0:
        losses.append(-np.log(p[row, label]))
        hits.append(p[row].argmax() == label)
  assert len(losses) == 5 + 3 + 3
  np.testing.assert_allclose(value, np.mean(losses), rtol=1e-5)
  np.testing.assert_allclose(metrics['accuracy_asked'], np.mean(hits))
  # Without other questions it is the cross-entropy of one question.
  value, metrics = learner.loss(params, episode_of(asked=0), key, 0)
  np.testing.assert_allclose(value, np.mean(losses[:5]), rtol=1e-5)
  assert 'accuracy_asked' not in metrics


def test_a_scale_that_is_not_positive_is_refused():
  message = errors.refusal(contrastive.Config, WAY, scale=0.0)
  assert message == 'scale = 0.0 must be above 0'


def test_normalised_patches_do_not_depend_on_colours():
  rng = np.random.default_rng(0)
  ink = (rng.uniform(size=(5, 36, 1)) < 0.3).astype(np.float32)
  ground, colour = rng.uniform(size=(2, 5, 1, 3))
  patches = ground + ink * (colour - ground)
  even, contrast = towers.normalise_contrast(jnp.asarray(patches, jnp.float32))
  d = patches - patches.mean(axis=1, keepdims=True)
  length = np.linalg.norm(d, axis=-1)
  root = np.sqrt((length**2).mean(axis=1, keepdims=True))
  # Exact but for what keeps flat patches finite, FLAT of the mean square.
  np.testing.assert_allclose(contrast, length / root, rtol=0.02)
  np.testing.assert_allclose(even, d / root[..., None], rtol=0.02)
  fraction = ink.mean(axis=1, keepdims=True)
  shape = np.abs(ink - fraction) / np.sqrt(fraction * (1 - fraction))
  np.testing.assert_allclose(contrast, shape[..., 0], rtol=0.02)


def test_a_flat_patch_has_no_contrast_and_finite_gradients():
  def total(patches):
    even, contrast = towers.normalise_contrast(patches)
    return jnp.sum(jnp.square(even)) + jnp.sum(contrast)

  patches = jnp.full((1, 9, 3), 0.4)
  even, contrast = towers.normalise_contrast(patches)
  np.testing.assert_allclose(even, 0.0, atol=1e-4)
  np.testing.assert_allclose(contrast, 1.0, atol=1e-4)
  assert np.isfinite(jax.grad(total)(patches)).all()


def test_inner_products_of_pairs_are_squares_of_inner_products():
  rng = np.random.default_rng(0)
  tiles, string = rng.normal(size=(4, 5)), rng.normal(size=(1, 5))
  pair = lambda v: np.asarray(towers.pairs(jnp.asarray(v)[None])[0])
  assert pair(tiles).shape == (15,)
  by_hand = sum((tile @ string[0]) ** 2 for tile in tiles)
  np.testing.assert_allclose(pair(tiles) @ pair(string), by_hand, rtol=1e-5)


def test_towers_are_second_order_sums_of_patches_and_of_bags_of_words():
  image, string = towers.ImageTower(10, (6,)), towers.TextTower(9, 10, 6)
  x = jnp.asarray(np.random.default_rng(0).uniform(size=(2, 4, 4, 3)))
  ids = jnp.array([[1, 2, 3, 0], [3, 0, 1, 2], [3, 3, 1, 2]])
  image_params = image.init(jax.random.key(0), x)
  text_params = string.init(jax.random.key(1), ids)
  images = image.apply(image_params, x)
  strings = np.asarray(string.apply(text_params, ids))
  np.testing.assert_allclose(strings[0], strings[1], rtol=1e-5)
  assert not np.allclose(strings[0], strings[2])
  # The same from the vectors of patches and the sums of words.
  p = jax.tree.map(np.asarray, text_params['params'])
  v = p['words'][[1, 2, 3]].sum(axis=0) @ p['Dense_0']['kernel']
  v += p['Dense_0']['bias']
  square = np.outer(v, v)
  rows, columns = np.triu_indices(4)
  expected = square[rows, columns] * np.where(rows == columns, 1, 2**0.5)
  np.testing.assert_allclose(strings[0], expected, rtol=1e-4, atol=1e-5)
  # Patches in other places are other images.
  swapped = x[:, :, jnp.array([2, 3, 0, 1])]
  assert not np.allclose(image.apply(image_params, swapped), images)


def test_a_width_that_is_no_number_of_pairs_is_refused():
  assert [towers.pair_dimension(w) for w in (1, 3, 136, 528)] == [1, 2, 16, 32]
  message = errors.refusal(contrastive.Config, WAY, width=128, error=ValueError)
  assert '128' in message and message.endswith(': choose 120 or 136')
