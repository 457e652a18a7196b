"""HNET: a latent vector is decoded to the weights of a network with language.

Nava et al. 2023, "Meta-Learning via Classifier(-free) Diffusion Guidance",
arXiv:2210.08942. The target (see `targets.py`) answers questions on features
of a frozen `contrastive` encoder. Kinds:
  autodecoder    a free z_i for each training task, learned with the decoder:
                 mean CE(W(z_i)) + penalty |z_i|^2, beside CE(W(z_0));
  maml           z = z_0 - inner steps on the support (HNet-MAML);
  multitask      W(z_0) for all tasks, the unconditional network;
  conditional    z = z_0 + a perceptron of the question, then inner steps, if
                 any (conditional multitask, conditional HNet-MAML);
  weights        inner steps on the weights themselves (MNet-MAML);
  film           the question scales and shifts the hidden layer of one adapter.
`accuracy` is after the inner steps on the support, `accuracy_start` before.
"""

import types

import jax.numpy as jnp

from hyperudl import learners
from hyperudl.learners._language import dual_encoder
from hyperudl.learners._language import hypernetwork
from hyperudl.nets import target_nets
from hyperudl.ops import losses

START_WEIGHT = 0.1  # of CE(W(z_0)) beside that of the codes


def make(
  way,
  *,
  kind='autodecoder',
  target='adapter',
  adapter=32,
  channels=(16, 32, 32),
  scale=20.0,
  latent=48,
  decoder=(128, 128),
  inner_steps=10,
  inner_rate=0.03,
  inner_optimizer='adam',
  meta_grad='first_order',
  penalty=1e-3,
  vocabulary=512,
  width=300,
  hidden=(192, 96),
  grid=2,
  inner_width=96,
):
  """The `hypernet` learner.

  Args:
    way: N, the most answers of a task.
    kind: see the module's docstring.
    target: 'adapter', 'head' or 'convnet', see `targets.py`.
    adapter: hidden width of the adapter.
    channels: of the convnet.
    scale: of the cosines with the answers.
    latent: Z.
    decoder: widths of the decoder between z and the weights.
    inner_steps: K >= 0, of gradient descent on the support.
    inner_rate, inner_optimizer: of it ('sgd' or 'adam').
    meta_grad: 'full' or 'first_order', through the inner steps.
    penalty: of |z_i|^2, kind 'autodecoder'.
    vocabulary, width, hidden, grid, inner_width: of the frozen `contrastive`
      encoder (its `inner` is `inner_width` here).

  Raises:
    ValueError: for an unknown choice or a number out of range.
  """
  s = settings_of(**locals())  # while these are all the names

  def adapt(params, support, key, *, train):
    del key, train
    return hypernetwork.adapted(
      s, params, support, hypernetwork.start(s, params, support.context)
    )

  return learners.make_learner(
    lambda key, episode: hypernetwork.init(s, key, episode),
    adapt,
    lambda params, task, x, context: hypernetwork.predict(s, params, task, x),
    lambda params, episode, key, step: loss(s, params, episode),
    lambda params, episode, key: evaluate(s, params, episode),
  )


def settings_of(way, **settings):
  """Checked `Settings` with the defaults of `make`.

  Raises:
    ValueError: for an unknown choice or a number out of range.
    TypeError: for a setting that does not exist.
  """
  given = {**make.__kwdefaults__, **settings}
  unknown = sorted({*given} - {*make.__kwdefaults__})
  if unknown:
    raise TypeError(f'HNET has no setting {", ".join(unknown)}')
  g = types.SimpleNamespace(**given)
  towers = dual_encoder.Towers(
    g.vocabulary, g.width, tuple(g.hidden), g.grid, g.inner_width
  )
  s = hypernetwork.Settings(
    g.kind,
    towers,
    target_nets.Target(
      g.target, way, g.width, g.adapter, tuple(g.channels), g.scale
    ),
    g.latent,
    tuple(g.decoder),
    g.inner_steps,
    g.inner_rate,
    g.inner_optimizer,
    g.meta_grad,
    g.penalty,
  )
  hypernetwork.check(s)
  return s


def loss(s, params, episode):
  """(f32[], metrics) of one task; see the module's docstring."""
  support, query = episode.support, episode.query
  first = hypernetwork.start(s, params, support.context)
  if s.kind != 'autodecoder':
    task = hypernetwork.adapted(s, params, support, first)
    logits = hypernetwork.predict(s, params, task, query.x)
    return losses.cross_entropy(logits, query.y), {
      'accuracy': losses.accuracy(logits, query.y)
    }
  # The codes of training tasks see all of their images.
  x = jnp.concatenate([support.x, query.x])
  y = jnp.concatenate([support.y, query.y])
  words = hypernetwork.words_of(s, params, support.context)
  features = hypernetwork.features_of(s, params, x)
  z = hypernetwork.code(params, episode)
  logits = hypernetwork.answer(s, params, {'z': z}, words, x, features)
  common = hypernetwork.answer(s, params, first, words, x, features)
  value = losses.cross_entropy(logits, y)
  value += s.penalty * jnp.sum(jnp.square(z))
  value += START_WEIGHT * losses.cross_entropy(common, y)
  return value, {
    'accuracy': losses.accuracy(logits, y),
    'accuracy_start': losses.accuracy(common, y),
    'code_norm': jnp.sqrt(jnp.sum(jnp.square(z))),
  }


def evaluate(s, params, episode):
  """Metrics before and after the inner steps on the support."""
  support, query = episode.support, episode.query
  first = hypernetwork.start(s, params, support.context)
  before = hypernetwork.adapted(s, params, support, first, steps=0)
  after = hypernetwork.adapted(s, params, support, first)
  logits = hypernetwork.predict(s, params, before, query.x)
  return {
    **losses.classification_metrics(
      hypernetwork.predict(s, params, after, query.x), query.y
    ),
    'accuracy_start': losses.accuracy(logits, query.y),
    'nll_start': losses.cross_entropy(logits, query.y),
  }
