"""Generates class weights that start from the prototypes of a support set.

The weight of class k is c_k = f_k + Delta(f_k, s_k; all classes), where f_k and
s_k are class means of the CNN's features and of the shared features of the
support. Delta is a transformer over the classes, whose last layer is zero at
first; so class weights start as prototypes. On the support a network as large
as that of s may look at the images, while queries pass through the small CNN
alone. All functions take ONE episode.
"""

from flax import linen as nn
import jax
import jax.numpy as jnp

from hyperudl import core
from hyperudl.learners.hypertransformer import config as config_lib
from hyperudl.nets import transformer
from hyperudl.ops import losses
from hyperudl.ops import normalization


class ClassWeights(nn.Module):
  """Generates the class weights of one episode."""

  config: config_lib.Config

  @nn.compact
  def __call__(
    self,
    features: jax.Array,
    shared: jax.Array,
    y: jax.Array,
    *,
    train: bool,
  ) -> jax.Array:
    """Return the class weights f32[N, D].

    Args:
      features: f32[S, D], the CNN's features of the support.
      shared: f32[S, F], its shared features; F = 0 for none.
      y: i32[S] in [-1, N).
      train: whether dropout is on (which then needs the rng 'dropout').
    """
    config = self.config
    means = lambda x: losses.class_means(x, y, config.way)
    prototypes = means(features)
    mask = absent = None
    if config.varies:
      mask = (y != core.NO_IMAGE).astype(jnp.float32)
      absent = losses.class_counts(y, config.way) == 0
    drop = nn.Dropout(config.shared_dropout, deterministic=not train)
    inputs = [prototypes, drop(means(normalization.standardise(shared, mask)))]
    tokens = nn.Dense(config.class_width, name='in')(
      jnp.concatenate(inputs, axis=-1)
    )
    encoder = transformer.Encoder(
      layers=config.class_layers,
      heads=config.heads,
      inner=2.0,
      norm='pre',
      dropout=config.dropout,
      name='encoder',
    )
    hidden = nn.Dense(config.class_width, name='hidden')(
      encoder(tokens, absent, train=train)
    )
    last = nn.Dense(
      features.shape[-1], kernel_init=nn.initializers.zeros, name='out'
    )
    return prototypes + last(jax.nn.relu(hidden))
