"""Decodes the weights of networks for tasks with language from a latent.

HNET of Nava et al. 2023 (arXiv:2210.08942): each network is one latent vector.
These parts of the learner `hypernet` are shared by `hvae`, `hyperclip` and
`hyperldm`, which use a frozen `hypernet`.
"""

from collections.abc import Callable
import dataclasses
from typing import Literal
from typing import NamedTuple
from typing import get_args

import jax
from jax.flatten_util import ravel_pytree
import jax.numpy as jnp
import optax

from hyperudl import core
from hyperudl.core.hyperparameters import field
from hyperudl.learners._language import dual_encoder
from hyperudl.nets import mlp
from hyperudl.nets import target_nets
from hyperudl.nets import towers as towers_lib
from hyperudl.nets import weight_decoder
from hyperudl.ops import gradient_descent
from hyperudl.ops import losses

Kind = Literal[
  'autodecoder', 'maml', 'multitask', 'conditional', 'weights', 'film'
]
Target = Literal['adapter', 'head', 'convnet']
MetaGrad = Literal['full', 'first_order']
KINDS, TARGETS, META_GRADS = map(get_args, (Kind, Target, MetaGrad))


@dataclasses.dataclass(frozen=True)
class Config(dual_encoder.Config):
  """Hyperparameters of `hypernet`, and of its frozen `contrastive` encoder."""

  inner_width: int = field(96, at_least=1)  # `inner` of `contrastive`
  kind: Kind = 'autodecoder'  # see `hypernet`
  target: Target = 'adapter'  # the network with generated weights
  adapter: int = field(32, at_least=1)  # its hidden width
  channels: tuple[int, ...] = field((16, 32, 32), at_least=1)  # of 'convnet'
  scale: float = field(20.0, above=0)  # factor of cosines with the answers
  latent: int = field(48, at_least=1)  # Z
  decoder: tuple[int, ...] = field((128, 128), at_least=1)  # hidden widths
  inner_steps: int = field(10, at_least=0)  # K, on the support
  inner_rate: float = field(0.03, above=0)
  inner_optimizer: Literal['sgd', 'adam'] = 'adam'
  meta_grad: MetaGrad = 'first_order'  # outer gradient through inner steps
  penalty: float = 1e-3  # weight of |z_i|^2, for kind 'autodecoder'

  def __post_init__(self):
    super().__post_init__()
    if not self.channels:
      raise core.BadInput('channels = (): expected one number or more')
    if self.kind == 'film' and self.target != 'adapter':
      raise core.BadInput(
        "kind = 'film' scales the adapter's hidden layer: set target = "
        f"'adapter', not {self.target!r}"
      )

  @property
  def towers(self) -> dual_encoder.Towers:
    """The frozen encoders of images and strings."""
    return dual_encoder.make_towers(self, self.inner_width)

  @property
  def target_net(self) -> target_nets.TargetNet:
    """The network with generated weights."""
    if self.target == 'head':
      return target_nets.head(self.width, self.way)
    if self.target == 'convnet':
      return target_nets.convnet(self.width, self.channels, self.scale)
    return target_nets.adapter(self.width, self.adapter, self.scale)


class FastWeights(NamedTuple):
  """What the inner loop adapts: a latent or weights; unused fields are None."""

  latent: jax.Array | None = None  # f32[Z], decoded to weights
  weights: core.PyTree = None  # of the target network
  film: jax.Array | None = None  # f32[2, H], on the adapter's hidden layer


class Task(NamedTuple):
  """The result of `adapt`."""

  fast: FastWeights
  words: towers_lib.Words


def check_has_latents(config: Config) -> None:
  """Refuse a hypernet that does not have one latent for each task.

  Raises:
    BadInput: naming the kinds that have.
  """
  if config.kind in ('weights', 'film', 'multitask'):
    raise core.BadInput(
      f'kind={config.kind!r} has no latent for each task: use '
      "'autodecoder', 'maml' or 'conditional'"
    )
  if config.kind == 'maml' and not config.inner_steps:
    raise core.BadInput("kind='maml' with inner_steps=0 adapts to no task")


def init(config: Config, key: jax.Array, episode: core.Episode) -> core.PyTree:
  """Return parameters, with 'codes' f32[tasks, Z] for kind 'autodecoder'."""
  keys = jax.random.split(key, 5)
  support = episode.support
  encoder = dual_encoder.init(config.towers, keys[0], support)
  weights = config.target_net.init(keys[1], support.x)
  params: core.PyTree = {'frozen': {'contrastive': encoder}}
  if config.kind in ('weights', 'film'):
    params['weights'] = weights
  else:
    params['decoder'] = weight_decoder.init(
      keys[2], weights, config.latent, config.decoder
    )
    params['start'] = 0.1 * jax.random.normal(keys[3], (config.latent,))
  if config.kind == 'autodecoder':
    shape = (episode.extra['task'].shape[0], config.latent)
    params['codes'] = 0.1 * jax.random.normal(keys[4], shape)
  if config.kind in ('conditional', 'film'):
    out = config.latent if config.kind == 'conditional' else 2 * config.adapter
    embed = dual_encoder.DualEncoder(config.towers, encoder).embed_words
    width = embed(support.context).question.shape[0]
    params['from_question'] = mlp.init(keys[4], (width, 128, out), 0.1)
  return params


def freeze(params: core.PyTree) -> core.PyTree:
  """Return a hypernet's parameters as the 'frozen' ones of another learner."""
  net = {name: value for name, value in params.items() if name != 'frozen'}
  return {**params['frozen'], 'hypernet': net}


def unfreeze(config: Config, params: core.PyTree) -> 'Hypernet':
  """Return the hypernet stored by `freeze` in a learner's parameters."""
  frozen = params['frozen']
  encoder = {'contrastive': frozen['contrastive']}
  return Hypernet(config, {**frozen['hypernet'], 'frozen': encoder})


@dataclasses.dataclass(frozen=True)
class Hypernet:
  """A hypernet with its parameters."""

  config: Config
  params: core.PyTree

  @property
  def encoder(self) -> dual_encoder.DualEncoder:
    """The frozen encoder of images and strings."""
    params = self.params['frozen']['contrastive']
    return dual_encoder.DualEncoder(self.config.towers, params)

  @property
  def base(self) -> core.PyTree:
    """The base weights of the decoder."""
    return self.params['decoder']['base']

  def initial_weights(self, context: core.PyTree) -> FastWeights:
    """Return the fast weights that inner steps begin from."""
    params, kind = self.params, self.config.kind
    if kind == 'weights':
      return FastWeights(weights=params['weights'])
    if kind not in ('conditional', 'film'):
      return FastWeights(params['start'])
    question = self.encoder.embed_words(context).question
    generated = mlp.apply(params['from_question'], question)
    if kind == 'conditional':
      return FastWeights(params['start'] + generated)
    film = generated.reshape(2, self.config.adapter)
    return FastWeights(weights=params['weights'], film=film)

  def weights_of(self, fast: FastWeights) -> core.PyTree:
    """Return the target network's weights, decoded if `fast` has a latent."""
    if fast.latent is None:
      return fast.weights
    return weight_decoder.apply(self.params['decoder'], fast.latent)

  def deviation(self, fast: FastWeights) -> jax.Array:
    """Return the weights minus the base weights, flattened: f32[D]."""
    weights = ravel_pytree(self.weights_of(fast))[0]
    return weights - ravel_pytree(self.base)[0]

  def logits(
    self, task: Task, x: jax.Array, features: jax.Array | None = None
  ) -> jax.Array:
    """Return logits f32[n, N] of images.

    Args:
      task: fast weights and words.
      x: f32[n, H, W, C] or f32[n, E].
      features: f32[n, E], encoder features of x; None to compute them here.
    """
    if features is None:
      features = self.encoder.embed_images(x)
    weights, (fast, words) = self.weights_of(task.fast), task
    target = self.config.target_net
    return target.logits(weights, x, features, words, fast.film)

  def make_support_loss(
    self, support: core.Examples, words: towers_lib.Words
  ) -> Callable[[FastWeights], jax.Array]:
    """Return a function from fast weights to the support's cross-entropy."""
    features = self.encoder.embed_images(support.x)

    def loss(fast):
      logits = self.logits(Task(fast, words), support.x, features)
      return losses.cross_entropy(logits, support.y)

    return loss

  def adapt(
    self, support: core.Examples, fast: FastWeights, steps: int | None = None
  ) -> Task:
    """Return the task after inner steps on the support.

    Args:
      support: images, labels and the context of a task with language.
      fast: initial fast weights, such as `initial_weights`.
      steps: K, by default that of the config.
    """
    config = self.config
    words = self.encoder.embed_words(support.context)
    steps = config.inner_steps if steps is None else steps
    if steps and config.kind not in ('multitask', 'film'):
      loss = self.make_support_loss(support, words)
      # eps_root is needed because the derivative of sqrt at 0 is infinite.
      optimizer = (
        optax.sgd(config.inner_rate)
        if config.inner_optimizer == 'sgd'
        else optax.adam(config.inner_rate, eps_root=1e-12)
      )
      fast, _ = gradient_descent.optimise(
        lambda fast, step: loss(fast),
        fast,
        optimizer,
        steps,
        first_order=config.meta_grad == 'first_order',
      )
    return Task(fast, words)

  def adapt_to_all_images(self, episode: core.Episode) -> FastWeights:
    """Return fast weights adapted to all images of a training task."""
    fast = self.initial_weights(episode.support.context)
    return self.adapt(all_images(episode), fast).fast

  def task_code(self, episode: core.Episode) -> jax.Array:
    """Return the learned latent f32[Z] of a training task ('autodecoder')."""
    return episode.extra['task'] @ self.params['codes']

  def task_latent(self, episode: core.Episode) -> jax.Array:
    """Return the latent f32[Z] of a training task, without a gradient.

    This is `extra['latent']` if `data.latents` provides one, else the learned
    latent of an autodecoder, else the result of inner steps on all images.
    """
    extra = episode.extra or {}
    if 'latent' in extra:
      latent = extra['latent']
    elif self.config.kind == 'autodecoder':
      latent = self.task_code(episode)
    else:
      latent = self.adapt_to_all_images(episode).latent
    return jax.lax.stop_gradient(latent)


def all_images(episode: core.Episode) -> core.Examples:
  """Return support and queries of a training task as one support."""
  support, query = episode.support, episode.query
  return support._replace(
    x=jnp.concatenate([support.x, query.x]),
    y=jnp.concatenate([support.y, query.y]),
  )
