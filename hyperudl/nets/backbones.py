"""Makes networks that embed images (like Conv4, ResNet-12) and lists layers.

All have one interface: parameters {'<layer>': {'kernel', 'scale', 'bias'}, ...,
'head': ...} without a deeper level; logits, or features if head is None. A
backbone is a module in `BACKBONES` that lists its convolutions by `blocks`;
`layer_specs` describes each layer for hypernetworks that generate its weights.
"""

from collections.abc import Callable
from collections.abc import Sequence
import functools
from typing import Any
from typing import Literal
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from hyperudl import core
from hyperudl.nets import conv
from hyperudl.ops import conv as conv_ops
from hyperudl.ops import pooling

SLOPE = 0.1  # of leaky ReLU
CHANNEL_PARAMETERS = ('conv_bias', 'scale', 'bias')  # in order of use
CONVS_PER_BLOCK = 3  # of ResNet-12, without the shortcut


class LayerSpec(NamedTuple):
  """Describes a layer to a hypernetwork that generates its weights."""

  name: str  # its key in the parameters
  kernel_shape: tuple[int, ...]  # (kh, kw, Cin, Cout), or (D, N) for 'head'
  norm: str  # 'batch', 'domain', 'group', 'layer' or 'none'
  # Names of its other parameters f32[Cout], in order of use.
  channel_parameters: tuple[str, ...]
  # The module of this layer if the network is a chain, i.e. each layer takes
  # the output of the previous one. None in other networks, and for 'head'.
  block: nn.Module | None

  @property
  def is_head(self) -> bool:
    """Whether this is the linear layer of the logits."""
    return len(self.kernel_shape) == 2


Specs = tuple[LayerSpec, ...]


class ResNet12(nn.Module):
  """Four residual blocks of three 3x3 convolutions (Oreshkin et al. 2018).

  See arXiv:1805.10123; widths and slope are those of Lee et al. 2019,
  arXiv:1904.03758, without their DropBlock. Each convolution is followed by the
  norm, the first two also by leaky ReLU; the shortcut is a 1x1 convolution with
  norm; leaky ReLU and 2x2 max-pooling end a block. With the published widths it
  has 12.4 million parameters.

  Attributes:
    channels: filters of each block; published: 64, 160, 320, 640.
    norm: 'batch', 'domain', 'group' or 'layer'.
    head: number of classes, or None for no head.
    features: 'mean' over positions (published) or 'flatten'.

  Raises:
    ValueError: for an unknown choice, norm='none' or images that are too small.
  """

  channels: Sequence[int] = (64, 160, 320, 640)
  norm: str = 'batch'
  head: int | None = None
  features: str = 'mean'
  is_chain = False  # see `LayerSpec.block`

  def __post_init__(self):
    conv.check_readout(self.features, self.head)
    if self.norm == 'none':
      raise ValueError("resnet12 needs a norm: 'batch', 'group' or 'layer'")
    self.blocks()  # raises the errors of its layers
    super().__post_init__()

  def blocks(
    self, parent: nn.Module | None = None
  ) -> dict[str, conv.ConvBlock]:
    """Return the convolutions by name, as submodules of `parent`."""
    kinds = [
      *((str(i), 3, 'leaky') for i in range(CONVS_PER_BLOCK - 1)),
      (str(CONVS_PER_BLOCK - 1), 3, 'none'),
      ('shortcut', 1, 'none'),
    ]
    return {
      f'block{index}_{layer}': conv.ConvBlock(
        width,
        kernel=kernel,
        pool=False,
        norm=self.norm,
        activation=activation,
        name=f'block{index}_{layer}',
        parent=parent,
      )
      for index, width in enumerate(self.channels)
      for layer, kernel, activation in kinds
    }

  @nn.compact
  def __call__(
    self, x: jax.Array, domains: core.PyTree | None = None
  ) -> jax.Array:
    """Return logits f32[n, head], or features f32[n, D], of f32[n, H, W, C].

    `domains` is for norm='domain', see `conv.ConvNet`.
    """
    blocks = self.blocks(parent=self)
    apply = lambda name, x: blocks[name](x, conv.of_block(domains, name))
    for index in range(len(self.channels)):
      y = x
      for layer in range(CONVS_PER_BLOCK):
        y = apply(f'block{index}_{layer}', y)
      x = apply(f'block{index}_shortcut', x)
      # Pooling first gives the same result, since leaky ReLU is monotone.
      x = jax.nn.leaky_relu(pooling.max_pool(x + y), SLOPE)
    return conv.readout(x, self.features, self.head)


# Each takes (channels, *, norm, head, features); its modules have `blocks` and
# `is_chain`.
BACKBONES: dict[str, Callable[..., nn.Module]] = {
  'conv': conv.ConvNet,
  'resnet12': ResNet12,
  'conv_stride2': functools.partial(conv.ConvNet, stride=2, pool=False),
}
# Types of the fields `backbone` and `norm` of learners.
Backbone = Literal[tuple(BACKBONES)]  # type: ignore[valid-type]
Norm = Literal['batch', 'group', 'layer', 'none']


def make(
  backbone: str,
  channels: Sequence[int],
  norm: str,
  head: int | None = None,
  features: str = 'flatten',
) -> nn.Module:
  """Return the module of a backbone.

  Args:
    backbone: name in `BACKBONES`: 'conv' (3x3 convolutions, each followed by
      norm, ReLU and 2x2 max-pooling; four of them are Conv4), 'resnet12' or
      'conv_stride2' (stride 2 instead of pooling).
    channels: filters of each block.
    norm: 'batch', 'domain', 'group', 'layer' or, except for 'resnet12', 'none'.
    head: number of classes, or None for features.
    features: 'flatten' or 'mean' (over positions).

  Raises:
    ValueError: for an unknown choice or a number out of range.
  """
  conv_ops.check_choice('backbone', backbone, BACKBONES)
  return BACKBONES[backbone](
    tuple(channels), norm=norm, head=head, features=features, parent=None
  )


def layer_specs(module: nn.Module, input_shape: tuple[int, ...]) -> Specs:
  """Return the layers of a backbone in order, with the head last.

  Args:
    module: from `make`, or another module with `blocks` and `is_chain`.
    input_shape: (H, W, C) of the images.

  Raises:
    ValueError: for images that are too small.
  """
  image = jnp.zeros((1, *input_shape))
  shapes = jax.eval_shape(module.init, jax.random.key(0), image)['params']
  specs = []
  for name, block in module.blocks().items():
    kernel = tuple(shapes[name]['kernel'].shape)
    others = tuple(p for p in CHANNEL_PARAMETERS if p in shapes[name])
    chained = block if module.is_chain else None
    specs.append(LayerSpec(name, kernel, block.norm, others, chained))
  if 'head' in shapes:
    kernel = tuple(shapes['head']['kernel'].shape)
    specs.append(LayerSpec('head', kernel, 'none', ('bias',), None))
  return tuple(specs)


def make_with_specs(
  backbone: str, *settings: Any, input_shape: tuple[int, ...]
) -> tuple[nn.Module, Specs]:
  """Return `make(backbone, *settings)` and its layers for images (H, W, C)."""
  module = make(backbone, *settings)
  return module, layer_specs(module, input_shape)
