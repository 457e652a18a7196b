"""Generates the weight slices of one layer from features of a support set.

An encoder over weight tokens and sample tokens turns both into the slices of
the layer's kernel (HyperTransformer, arXiv:2201.04182). Of ONE episode.
"""

from flax import linen as nn
import jax
import jax.numpy as jnp

from hyperudl.learners.hypertransformer import config as config_lib
from hyperudl.nets import transformer


def make_encoder(
  config: config_lib.Config, *, is_head: bool, name: str | None = None
) -> transformer.Encoder:
  """Return an encoder, or decoder, of a layer or of the logits layer."""
  return transformer.Encoder(
    layers=config.layers,
    heads=config.heads,
    key_query=config.key_query,
    value=config.value,
    inner=config.inner,
    attention=config.attention,
    activation=config.nonlinearity,
    skip_last_nonlinearity=config.skip_last_nonlinearity,
    # It would move the logits of all classes alike: no gradient.
    last_bias=not is_head,
    dropout=config.dropout,
    name=name,
  )


class LayerGenerator(nn.Module):
  """Weight slices of one layer from labelled features of the support set.

  Weight tokens are [table row of slice j; previous slice j or 0], sample
  tokens [row of label y; features; 0]. Unlabelled rows (y = -1) have a row of
  their own, the last of the label table. The output for weight token j,
  without its first `embedding` entries, is slice j.

  The 'joint' generator is one encoder over all tokens, weights first, whose
  width is `embedding` plus the wider of a slice and the features; with a
  decoder, this attends to the encoder's output for the same tokens. The
  'separate' one is an encoder over the samples, without padding, and a
  decoder over the weights.

  Attributes:
    config: hyperparameters.
    tokens: slices of the layer.
    size: entries of a slice.
    is_head: whether it is the logits layer.
  """

  config: config_lib.Config
  tokens: int
  size: int
  is_head: bool = False

  @nn.compact
  def __call__(
    self,
    features: jax.Array,
    y: jax.Array,
    *,
    train: bool,
    removed: jax.Array | None = None,
    previous: jax.Array | None = None,
  ) -> jax.Array:
    """Generate.

    Args:
      features: f32[S, F] of the support rows.
      y: i32[S] in [-1, way).
      train: whether dropout is on.
      removed: None or f32[S]; 1 masks a row in attention.
      previous: None or f32[tokens, size], the slices of an earlier task.

    Returns:
      f32[tokens, size].
    """
    config = self.config
    way, width = config.way, config.embedding
    normal = nn.initializers.normal(1.0)
    labels = self.param('labels', normal, (way + 1, width))
    weights = self.param('weights', normal, (self.tokens, width))
    # A product with one-hot rows: its gradient is a product, not a scatter.
    rows = jax.nn.one_hot(jnp.where(y < 0, way, y), way + 1)
    samples = jnp.concatenate([rows @ labels, features], axis=-1)
    if previous is None:
      previous = jnp.zeros((self.tokens, self.size))
    weights = jnp.concatenate([weights, previous], axis=-1)
    run = self._separate if config.generator == 'separate' else self._joint
    outputs = run(weights, samples, removed, train)
    return outputs[:, width : width + self.size]

  def _encoder(self, name):
    return make_encoder(self.config, is_head=self.is_head, name=name)

  def _separate(self, weights, samples, removed, train):
    encoded = self._encoder('encoder')(samples, removed, train=train)
    return self._encoder('decoder')(
      weights, source=encoded, source_mask=removed, train=train
    )

  def _joint(self, weights, samples, removed, train):
    width = max(weights.shape[1], samples.shape[1])
    pad = lambda x: jnp.pad(x, ((0, 0), (0, width - x.shape[1])))
    sequence = jnp.concatenate([pad(weights), pad(samples)])
    mask = None
    if removed is not None:
      mask = jnp.concatenate([jnp.zeros(self.tokens), removed])
    encoded = self._encoder('encoder')(sequence, mask, train=train)
    if self.config.decoder:
      encoded = self._encoder('decoder')(
        sequence, mask, source=encoded, source_mask=mask, train=train
      )
    return encoded[: self.tokens]
