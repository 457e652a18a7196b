"""The transformer hypernetwork of `udl`: an episode in, CNN weights out.

Tokens: one per support image, one per unlabelled image, two that describe
the posterior distribution of each of these sets, one per slice of every
convolution kernel (a slot), one per class for the head. After the encoder
each slot token is mapped to its slice (HyperTransformer, arXiv:2201.04182);
a head token to a correction of that class's prototype (HyperFast,
arXiv:2402.14335). There is no positional encoding: images of one set may
come in any order and number.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from hyperudl.nets import conv
from hyperudl.nets import transformer
from hyperudl.ops import losses
from hyperudl.ops import weight_tokens


def distribution(mean, log_variance, mask):
  """Moments of the aggregate posterior of a set of images.

  Args:
    mean, log_variance: f32[n, L], posterior of each image.
    mask: f32[n], rows that belong to the set.

  Returns:
    f32[3 L + 1]: mean of means, mean of variances, variance of means, and
    log(1 + number of rows).
  """
  return jnp.concatenate(
    [
      losses.masked_mean(mean, mask),
      losses.masked_mean(jnp.exp(log_variance), mask),
      losses.masked_variance(mean, mask),
      jnp.log1p(jnp.sum(mask))[None],
    ]
  )


class Generator(nn.Module):
  """Emits corrections to every layer of a CNN.

  Attributes:
    kernels: ((block name, kernel shape), ...) of the CNN.
    features: D, width of the CNN's embedding.
    way: N.
    width, layers, heads: of the encoder.
    trunk: channels of a stride-2 feature extractor whose output joins the
      posterior in the image tokens; () for none. Not used where the caller
      gives features.
    allocation: 'output' (slots are output channels; norm scale and bias are
      emitted too) or 'spatial' (slots are kernel positions).
    strength: initial size of the corrections, in units of the initial
      standard deviation of the weights.
  """

  kernels: tuple
  features: int
  way: int
  width: int = 64
  layers: int = 2
  heads: int = 4
  trunk: tuple[int, ...] = (16, 32, 32)
  allocation: str = 'output'
  strength: float = 0.1

  @nn.compact
  def __call__(self, x, y, posterior, mask, features=None, shift=None):
    """Corrections for one episode.

    Args:
      x: f32[n, H, W, C], labelled and unlabelled images.
      y: i32[n] in [-1, N).
      posterior: (mean, log-variance) f32[n, L] of the images.
      mask: f32[n]; rows with 0 are ignored.
      features: f32[n, F] of the images, in place of an own trunk, or None.
      shift: f32[2, width], added to the tokens of the two sets, or None.

    Returns:
      dict: block name -> {'kernel', 'scale', 'bias'} (only 'kernel' for
      'spatial'), 'head' -> f32[N, D].
    """
    labels = self.param('labels', _normal, (self.way + 1, self.width))
    images = self._image_tokens(x, posterior, features) + labels[y]
    slots = [
      self.param(f'slots_{name}', _normal, (count, self.width))
      for name, count, _ in self._slices()
    ]
    head = self.param('slot_head', _normal, (1, self.width))
    head = head + labels[: self.way]
    described = self._set_tokens(y, posterior, mask)
    if shift is not None:
      described += shift
    tokens = jnp.concatenate([*slots, head, described, images])
    ignore = jnp.concatenate(
      [jnp.zeros(tokens.shape[0] - x.shape[0]), 1.0 - mask]
    )
    encoder = transformer.Encoder(
      layers=self.layers, heads=self.heads, inner=2.0, norm='pre'
    )
    return self._write(encoder(tokens, ignore))

  def _image_tokens(self, x, posterior, features):
    stats = jnp.concatenate(posterior, axis=-1)
    tokens = nn.Dense(self.width, name='from_posterior')(stats)
    if features is None and self.trunk:
      net = conv.ConvNet(
        channels=self.trunk,
        stride=2,
        pool=False,
        norm='layer',
        head=None,
        features='mean',
        name='trunk',
      )
      features = net(x)
    if features is not None:
      tokens += nn.Dense(self.width, name='from_trunk')(features)
    return tokens

  def _set_tokens(self, y, posterior, mask):
    described = []
    for name, member in (('labelled', y >= 0), ('unlabelled', y < 0)):
      stats = distribution(*posterior, mask * member)
      described.append(nn.Dense(self.width, name=f'from_{name}_set')(stats))
    return jnp.stack(described)

  def _slices(self):
    extra = 2 if self.allocation == 'output' else 0
    for name, shape in self.kernels:
      yield name, *weight_tokens.slices_shape(shape, self.allocation, extra)

  def _write(self, tokens):
    corrections, start = {}, 0
    for (name, shape), (_, count, size) in zip(self.kernels, self._slices()):
      slices = nn.Dense(size, name=f'write_{name}')(
        tokens[start : start + count]
      )
      start += count
      strength = self._strength(name)
      # In units of the He initialisation of that layer.
      spread = math.sqrt(2 / math.prod(shape[:3]))
      kernel = weight_tokens.assemble(slices, shape, self.allocation)
      corrections[name] = {'kernel': strength * spread * kernel}
      if self.allocation == 'output':
        corrections[name]['scale'] = strength * slices[:, -2]
        corrections[name]['bias'] = strength * slices[:, -1]
    head = nn.Dense(self.features, name='write_head')(
      tokens[start : start + self.way]
    )
    corrections['head'] = self._strength('head') * head
    return corrections

  def _strength(self, name):
    init = lambda _: jnp.asarray(self.strength, jnp.float32)
    return self.param(f'strength_{name}', init)


def _normal(key, shape):
  return 0.5 * jax.random.normal(key, shape)
