"""Computes features of support images for a HyperTransformer's sample tokens.

`SharedFeatures` of the images are used for all layers; `LayerFeatures` are
computed from the activations that enter one layer. All functions take ONE
episode (arXiv:2201.04182).
"""

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from hyperudl import core
from hyperudl.learners.hypertransformer import config as config_lib
from hyperudl.learners.hypertransformer import target_network
from hyperudl.nets import backbones
from hyperudl.ops import conv
from hyperudl.ops import normalization

_ZEROS = nn.initializers.zeros
_INITS = {
  'glorot': nn.initializers.glorot_uniform,
  'he': nn.initializers.he_normal,
}


def mean_of_conv(x: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
  """Return the mean over positions of a VALID convolution of stride 1.

  The mean commutes with the convolution, so this computes the mean of each
  shifted window of x first, and never the whole convolution.

  Args:
    x: f32[n, H, W, Cin].
    kernel: f32[k, k, Cin, Cout], k <= H, W.
    bias: f32[Cout].

  Returns:
    f32[n, Cout].
  """
  count, height, width, _ = x.shape
  size = kernel.shape[0]
  rows, columns = height - size + 1, width - size + 1
  windows = np.zeros((height, width, size, size), np.float32)
  for i in range(size):
    for j in range(size):
      windows[i : i + rows, j : j + columns, i, j] = 1 / (rows * columns)
  means = jnp.einsum(
    'npc,pk->nkc',
    x.reshape(count, height * width, -1),
    windows.reshape(height * width, size * size),
  )
  return means.reshape(count, -1) @ kernel.reshape(-1, bias.size) + bias


class SharedFeatures(nn.Module):
  """Computes image features for the tokens of all layers: convolutions, mean.

  Attributes:
    layers: number of 3x3 convolutions with ReLU; stride 2, the last 1.
    width: filters of each.
    norm: whether batch normalisation (with statistics of the current images)
      follows each ReLU.
    padding: 'SAME' or 'VALID'.
    kernel_init: 'glorot' or 'he'.
  """

  layers: int
  width: int
  norm: bool = False
  padding: str = 'SAME'
  kernel_init: str = 'glorot'

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Return features f32[n, width] of images f32[n, H, W, C]."""
    for index in range(self.layers):
      if self.padding == 'VALID' and min(x.shape[1:3]) < 3:
        raise core.BadInput(
          f'layer {index + 1} of {self.layers} of the shared feature extractor '
          f"got {x.shape[1]}x{x.shape[2]} pixels, fewer than 3x3; use 'SAME' "
          'padding, fewer layers or larger images'
        )
      kernel, bias = _conv_params(self, index, 3, x, self.kernel_init)
      stride = 2 if index < self.layers - 1 else 1
      x = conv.episode_conv(x, kernel, stride=stride, padding=self.padding)
      x = jax.nn.relu(x + bias)
      if self.norm:
        x = self._normalise(x, index)
    return jnp.mean(x, axis=(1, 2))

  def _normalise(self, x, index):
    scale = self.param(f'scale{index}', nn.initializers.ones, (self.width,))
    shift = self.param(f'shift{index}', _ZEROS, (self.width,))
    mean, variance = normalization.moments(x, 'batch')
    return normalization.affine(x, mean, variance, scale, shift)


class LayerFeatures(nn.Module):
  """Computes features of the activations that enter a layer.

  A stack of VALID convolutions with stride 2 (the last one 1) and ReLUs between
  them. The features are the means over positions of each convolution's output,
  before the ReLU. If the input is smaller than the kernel, the kernel shrinks
  to its size and all strides are 1; the stack ends early once the activations
  are smaller than the kernel.

  Attributes:
    width: filters of each convolution.
    layers: number of convolutions.
    kernel_size: of each convolution.
    nonlinear: take the features after the ReLU instead.
  """

  width: int
  layers: int
  kernel_size: int = 3
  nonlinear: bool = False

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Return f32[n, <= layers * width] of activations f32[n, H, W, C]."""
    smallest = min(x.shape[1:3])
    size = min(self.kernel_size, smallest)
    stride = 2 if smallest >= self.kernel_size else 1
    features = []
    for index in range(self.layers):
      if min(x.shape[1:3]) < size:
        break
      kernel, bias = _conv_params(self, index, size, x)
      last = index == self.layers - 1
      if last and not self.nonlinear:
        features.append(mean_of_conv(x, kernel, bias))
        break
      step = 1 if last else stride
      x = conv.episode_conv(x, kernel, stride=step, padding='VALID') + bias
      activated = jax.nn.relu(x)
      features.append(jnp.mean(activated if self.nonlinear else x, (1, 2)))
      x = activated
    return jnp.concatenate(features, axis=-1)


def _conv_params(module, index, size, x, init='glorot'):
  """Return kernel and bias of a convolution of x to `module.width` channels."""
  shape = (size, size, x.shape[-1], module.width)
  kernel = module.param(f'kernel{index}', _INITS[init](), shape)
  return kernel, module.param(f'bias{index}', _ZEROS, shape[-1:])


def make_shared(config: config_lib.Config) -> SharedFeatures:
  """Return the module that computes the shared image features."""
  return SharedFeatures(
    layers=int(config.shared[0]),
    width=config.shared_dim,
    norm=config.shared.endswith('-bn'),
    padding=config.shared_padding,
    kernel_init=config.shared_init,
    parent=None,
  )


def make_for_layer(
  config: config_lib.Config, spec: backbones.LayerSpec, inputs: int
) -> LayerFeatures:
  """Return the module that computes features of a layer's input activations.

  Args:
    config: hyperparameters.
    spec: the layer.
    inputs: channels of the activations.
  """
  widest = inputs if spec.is_head else max(inputs, spec.kernel_shape[-1])
  return LayerFeatures(
    widest if config.features < 0 else config.features,
    layers=1 if spec.is_head else 2,
    kernel_size=3 if spec.is_head else config.kernel_size,
    nonlinear=spec.is_head and config.logits_nonlinear,
    name=f'{spec.name}_features',
  )


def shared_features(
  config: config_lib.Config, params: core.PyTree, x: jax.Array
) -> jax.Array:
  """Return shared features f32[n, F] of images; F = 0 if shared='none'.

  Args:
    config: hyperparameters.
    params: of the learner.
    x: f32[n, H, W, C] in [0, 1].
  """
  if config.shared == 'none':
    return jnp.zeros((x.shape[0], 0))
  variables = {'params': params['shared']['features']}
  return make_shared(config).apply(variables, target_network.scale_pixels(x))
