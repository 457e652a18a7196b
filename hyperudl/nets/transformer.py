"""Defines a transformer encoder or decoder of the tokens of ONE episode.

There is no positional encoding: the encoder is equivariant under permutations
of its tokens. `norm='post'` is the encoder of HyperTransformer (arXiv
2201.04182): x = LN(x + attention(x)), then x = LN(x + ffn(x)). `norm='pre'`
normalises inside the residual branches and once more at the end. Attention uses
einsums, because queries and keys, values, and tokens may all have different
widths.
"""

from collections.abc import Callable

from flax import linen as nn
import jax
import jax.numpy as jnp

from hyperudl import core

ATTENTIONS = ('softmax', 'sigmoid')
NORMS = ('post', 'pre')
ACTIVATIONS: dict[str, Callable] = {
  'relu': jax.nn.relu,
  'gelu': lambda x: jax.nn.gelu(x, approximate=False),
  'lrelu': lambda x: jax.nn.leaky_relu(x, 0.1),
}
_EPSILON = 1e-6  # of the layer norms, as in the reference
_NEVER = -1e8  # attention logit of a masked key


def inner_width(size: float, width: int, heads: int) -> int:
  """Return the width of a projection, given as a fraction or absolutely.

  Args:
    size: if at most 3, a fraction of `width`, rounded up to a multiple of
      `heads`; otherwise the width itself. 0 gives 0.
    width: width of the tokens.
    heads: number of attention heads.

  Raises:
    core.BadInput: an absolute size that `heads` does not divide.
  """
  if size <= 3:
    return -(-max(1, int(size * width)) // heads) * heads if size else 0
  if int(size) % heads:
    raise core.BadInput(
      f'width {size} is not a multiple of heads={heads}; give a multiple, or '
      'a fraction of the token width (up to 3), which is rounded up'
    )
  return int(size)


def _dense(name, *widths):
  """Make linear layers side by side in one matmul, each with its own init."""
  glorot = nn.initializers.glorot_uniform()

  def init(key, shape, dtype):
    keys = jax.random.split(key, len(widths))
    parts = [glorot(k, (shape[0], w), dtype) for k, w in zip(keys, widths)]
    return jnp.concatenate(parts, axis=-1)

  return nn.Dense(sum(widths), kernel_init=init, name=name)


def _layer_norm(name, use_bias=True):
  # The fast variance, E[x^2] - E[x]^2, loses digits.
  return nn.LayerNorm(
    epsilon=_EPSILON, use_bias=use_bias, use_fast_variance=False, name=name
  )


class Attention(nn.Module):
  """Multi-head self-attention or cross-attention with unequal widths.

  Parameters: 'in' projects tokens to queries, keys and values side by side,
  'out' projects back. With a source, 'query' projects tokens to queries and
  'source' the source to keys and values. (With softmax the bias of the keys has
  no effect.)

  Attributes:
    heads: number of attention heads.
    key_query: size of queries and keys of all heads (see `inner_width`).
    value: size of the values of all heads.
    attention: 'softmax' or 'sigmoid' (not normalised over keys).
  """

  heads: int
  key_query: float = 1.0
  value: float = 1.0
  attention: str = 'softmax'

  @nn.compact
  def __call__(
    self,
    tokens: jax.Array,
    mask: jax.Array | None = None,
    source: jax.Array | None = None,
  ) -> jax.Array:
    """Let tokens attend to each other or to a source.

    Args:
      tokens: f32[T, D].
      mask: None or [T] ([S] with a source); nonzero for keys that no token
        attends to.
      source: f32[S, D'] to attend to; None for the tokens themselves.

    Returns:
      f32[T, D].
    """
    count, width = tokens.shape
    heads = self.heads
    key_width = inner_width(self.key_query, width, heads)
    value_width = inner_width(self.value, width, heads)
    if source is None:
      projected = _dense('in', key_width, key_width, value_width)(tokens)
      parts = jnp.split(projected, [key_width, 2 * key_width], axis=-1)
    else:
      projected = _dense('source', key_width, value_width)(source)
      parts = [
        _dense('query', key_width)(tokens),
        *jnp.split(projected, [key_width], axis=-1),
      ]
    query, key, value = (p.reshape(p.shape[0], heads, -1) for p in parts)
    scale = (key_width // heads) ** -0.5
    logits = jnp.einsum('qhd,khd->hqk', query * scale, key)
    if mask is not None:
      logits = jnp.where(jnp.asarray(mask, bool), _NEVER, logits)
    squash = jax.nn.softmax if self.attention == 'softmax' else jax.nn.sigmoid
    weights = squash(logits)
    if mask is not None:  # if all keys are masked, the softmax is uniform
      weights = jnp.where(jnp.asarray(mask, bool), 0.0, weights)
    mixed = jnp.einsum('hqk,khd->qhd', weights, value)
    return _dense('out', width)(mixed.reshape(count, value_width))


class Encoder(nn.Module):
  """Layers of attention and a feed-forward net, with residual connections.

  With a source it is a decoder: in each layer, tokens attend to each other and
  then to the source.

  Attributes:
    layers: number of layers; 0 returns the tokens (normalised if norm='pre').
    heads: number of attention heads.
    key_query: size of queries and keys (see `inner_width`): if at most 3, a
      fraction of the token width, else absolute.
    value: size of the values, likewise.
    inner: size of the hidden layer of the feed-forward net, likewise; 0 omits
      the net.
    attention: 'softmax' or 'sigmoid'.
    activation: of the feed-forward net: 'relu', 'gelu' or 'lrelu' (slope .1).
    skip_last_nonlinearity: whether the last feed-forward net is linear.
    norm: 'post' or 'pre'.
    last_bias: whether the last layer norm has a bias.
    dropout: dropout rate on all residual branches, in training only (which
      then needs the rng 'dropout').
  """

  layers: int
  heads: int
  key_query: float = 1.0
  value: float = 1.0
  inner: float = 1.0
  attention: str = 'softmax'
  activation: str = 'relu'
  skip_last_nonlinearity: bool = False
  norm: str = 'post'
  last_bias: bool = True
  dropout: float = 0.0

  @nn.compact
  def __call__(
    self,
    tokens: jax.Array,
    mask: jax.Array | None = None,
    *,
    source: jax.Array | None = None,
    source_mask: jax.Array | None = None,
    train: bool = False,
  ) -> jax.Array:
    """Encode tokens, or decode them from a source.

    Args:
      tokens: f32[T, D].
      mask: None or [T]; nonzero for tokens that no token attends to.
      source: None or f32[S, D'].
      source_mask: None or [S]; the same for the source.
      train: whether dropout is on.

    Returns:
      f32[T, D].

    Raises:
      core.BadInput: unknown attention, activation or norm.
    """
    for name, choices in (
      ('attention', ATTENTIONS),
      ('activation', ACTIVATIONS),
      ('norm', NORMS),
    ):
      if getattr(self, name) not in choices:
        raise core.BadInput(
          f'{name}={getattr(self, name)!r} is unknown; choose one of '
          f'{", ".join(choices)}'
        )
    end = 'b' if self.inner else 'a' if source is None else 'c'
    last = f'norm{self.layers - 1}{end}' if self.norm == 'post' else ''
    for index in range(self.layers):
      attend = lambda x: self._attention(f'attention{index}')(x, mask)
      tokens = self._residual(tokens, attend, f'norm{index}a', last, train)
      if source is not None:
        cross = self._attention(f'cross{index}')
        attend = lambda x: cross(x, source_mask, source)
        tokens = self._residual(tokens, attend, f'norm{index}c', last, train)
      if self.inner:
        feed = lambda x: self._feed_forward(x, index)
        tokens = self._residual(tokens, feed, f'norm{index}b', last, train)
    if self.norm == 'pre':
      tokens = _layer_norm('norm', self.last_bias)(tokens)
    return tokens

  def _attention(self, name):
    return Attention(
      self.heads, self.key_query, self.value, self.attention, name=name
    )

  def _residual(self, tokens, branch, name, last, train):
    normalise = _layer_norm(name, self.last_bias or name != last)
    drop = nn.Dropout(self.dropout, deterministic=not train)
    if self.norm == 'post':
      return normalise(tokens + drop(branch(tokens)))
    return tokens + drop(branch(normalise(tokens)))

  def _feed_forward(self, tokens, index):
    width = tokens.shape[-1]
    hidden_width = inner_width(self.inner, width, self.heads)
    hidden = _dense(f'hidden{index}', hidden_width)(tokens)
    if not (self.skip_last_nonlinearity and index == self.layers - 1):
      hidden = ACTIVATIONS[self.activation](hidden)
    return _dense(f'out{index}', width)(hidden)
