"""Makes the features that `baseline` classifies, and transforms them."""

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from hyperudl.ops import losses

if TYPE_CHECKING:
  from hyperudl.learners.baseline import Config

_MAX_CHANNELS = 3  # of a histogram, which has bins^channels entries


def read(config: 'Config', x: jax.Array) -> jax.Array:
  """Return features f32[n, D] of images f32[n, H, W, C] or of rows f32[n, D].

  Raises:
    ValueError: a colour histogram of what are no images of 1 to 3 channels.
  """
  if config.features == 'color_histogram':
    return color_histograms(x, config.bins)
  return x.reshape(x.shape[0], -1)


def color_histograms(x: jax.Array, bins: int) -> jax.Array:
  """Return the fraction of pixels in each bin of the joint colour histogram.

  Args:
    x: f32[n, H, W, C], clipped to [0, 1].
    bins: of each channel, of equal width.

  Returns:
    f32[n, bins^C]; rows sum to 1.

  Raises:
    ValueError: no images, or more than 3 channels.
  """
  if x.ndim != 4 or x.shape[-1] > _MAX_CHANNELS:
    raise ValueError(
      "features='color_histogram' needs images of 1 to 3 channels, not shape "
      f"{x.shape}: set features='given'"
    )
  n, channels = x.shape[0], x.shape[-1]
  place = jnp.clip((x * bins).astype(jnp.int32), 0, bins - 1)
  index = place @ (bins ** jnp.arange(channels - 1, -1, -1))
  index = index.reshape(n, -1)
  counts = jnp.zeros((n, bins**channels), x.dtype)
  return counts.at[jnp.arange(n)[:, None], index].add(1 / index.shape[1])


def transform(name: str, features: jax.Array, mean: jax.Array) -> jax.Array:
  """Transform features f32[n, D].

  Args:
    name: 'none'; 'l2', rows of length one; 'centred', these after subtracting
      the mean; 'power', these of sign(f) |f|^.5 (PT-MAP, eq. 3, which takes
      features above zero; the sign is our addition).
    features: f32[n, D].
    mean: f32[D], of the training features.
  """
  if name == 'none':
    return features
  if name == 'centred':
    features = features - mean
  elif name == 'power':
    features = jnp.sign(features) * jnp.sqrt(jnp.abs(features) + 1e-6)
  return losses.unit(features)
