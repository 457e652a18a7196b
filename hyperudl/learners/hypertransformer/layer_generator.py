"""Generates the weight slices of one layer from features of a support set.

An encoder reads weight tokens and sample tokens; its outputs at the weight
tokens are the slices of the layer's kernel (HyperTransformer,
arXiv:2201.04182). All functions take ONE episode.
"""

from flax import linen as nn
import jax
import jax.numpy as jnp

from hyperudl.learners.hypertransformer import config as config_lib
from hyperudl.nets import label_encodings
from hyperudl.nets import transformer


def make_encoder(
  config: config_lib.Config, *, is_head: bool, name: str | None = None
) -> transformer.Encoder:
  """Return the encoder (or decoder) for a layer, or for the logits layer."""
  return transformer.Encoder(
    layers=config.layers,
    heads=config.heads,
    key_query=config.key_query,
    value=config.value,
    inner=config.inner,
    attention=config.attention,
    activation=config.nonlinearity,
    skip_last_nonlinearity=config.skip_last_nonlinearity,
    # In the logits layer it would change all logits equally: no gradient.
    last_bias=not is_head,
    dropout=config.dropout,
    name=name,
  )


class LayerGenerator(nn.Module):
  """Generates the weight slices of one layer from labelled support features.

  Weight tokens are [table row of slice j; previous slice j or 0], sample tokens
  [table row of label y; features; 0]. Unlabelled rows (y = -1) use the last row
  of the label table. The output at weight token j, without its first
  `embedding` entries, is slice j.

  The 'joint' generator is one encoder over all tokens, weights first, of width
  `embedding` plus the larger of the sizes of a slice and of the features;
  `config.decoder` adds a decoder over the same tokens that attends to the
  encoder's outputs. The 'separate' generator is an encoder over the samples,
  without padding, and a decoder over the weights.

  Attributes:
    config: hyperparameters.
    tokens: number of slices of the layer.
    size: entries of a slice.
    is_head: whether this is the logits layer.
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
    slots: jax.Array | None = None,
    *,
    train: bool,
    removed: jax.Array | None = None,
    previous: jax.Array | None = None,
  ) -> jax.Array:
    """Generate the slices.

    Args:
      features: f32[S, F] of the support rows.
      y: i32[S] in [-1, way).
      slots: i32[way], see `label_encodings.encode`.
      train: whether dropout is on.
      removed: None or f32[S]; 1 masks a row in attention.
      previous: None or f32[tokens, size], the slices of the previous task.

    Returns:
      f32[tokens, size].
    """
    config = self.config
    way, width = config.way, config.embedding
    normal = nn.initializers.normal(1.0)
    kind = config.label_encoding
    labels = label_encodings.encode(self, kind, way, width, 1.0, slots)
    weights = self.param('weights', normal, (self.tokens, width))
    # Look labels up by a matrix product, whose gradient needs no scatter.
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
