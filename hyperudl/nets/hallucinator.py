"""Defines networks that generate features of a class from one of its images.

There are two generators G(z, noise):

  residual  relu(z + MLP([z; noise])) whose last layer starts at zero, so that
            at first G(z, noise) = z for non-negative features;
  source    the form of the code that this follows: [z; noise] with noise of
            size D, two layers of width 1.5 D with ReLU and dropout .5, then one
            of width D with ReLU (3200-2400-2400-1600 for the D = 1600 features
            of 84 x 84 images).
"""

from flax import linen as nn
import jax
import jax.numpy as jnp


class Generator(nn.Module):
  """Maps features f32[n, D] and noise f32[n, noise] to features f32[n, D] >= 0.

  Attributes:
    kind: 'residual' or 'source'.
    hidden: width of 'residual'; that of 'source' is 1.5 D.
    dropout: fraction of hidden units of 'source' that are dropped in training.
  """

  kind: str
  hidden: int
  dropout: float

  @nn.compact
  def __call__(
    self, features: jax.Array, noise: jax.Array, train: bool
  ) -> jax.Array:
    """Generate features, with dropout if `train`."""
    x, size = jnp.concatenate([features, noise], -1), features.shape[-1]
    if self.kind == 'source':
      for _ in range(2):
        x = jax.nn.relu(nn.Dense(3 * size // 2)(x))
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
      return jax.nn.relu(nn.Dense(size)(x))
    for _ in range(2):
      x = jax.nn.relu(nn.Dense(self.hidden)(x))
    last = nn.Dense(size, kernel_init=nn.initializers.zeros)
    return jax.nn.relu(features + last(x))
