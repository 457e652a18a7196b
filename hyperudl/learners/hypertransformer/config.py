"""What a HyperTransformer can be set to; `learners/hypertransformer.py` says
what each setting means."""

from typing import NamedTuple

from hyperudl import core
from hyperudl.nets import transformer
from hyperudl.ops import weight_tokens

NETS = ('maxpool', 'strided')
GENERATORS = ('joint', 'separate')
STAGES = ('all', 'shared')
HEADS = ('written', 'prototypes')
SHARED = (
  'none',
  *(f'{n}-layer{norm}' for norm in ('', '-bn') for n in (2, 3, 4)),
)
LOGITS_FEATURES = ('default', 'passthrough', 'mix')
PADDINGS = ('SAME', 'VALID')
# Smallest legal values; rates are also below one.
RATES = ('dropout', 'shared_dropout', 'feature_dropout', 'label_smoothing')
SHARES = ('remove_labelled', 'remove_unlabelled')
WEIGHTS = ('variation_weight', 'l2_reg_weight', 'shared_head_weight')
POSITIVE = ('way', 'channels', 'depth', 'kernel_size', 'stride', 'shared_dim')
MINIMUM = {
  **dict.fromkeys(POSITIVE, 1),
  **dict.fromkeys(('embedding', 'layers'), 1),
  **dict.fromkeys(RATES, 0),
  **dict.fromkeys((*SHARES, *WEIGHTS), 0),
  **dict.fromkeys(('inner', 'block_scale', 'logits_scale'), 0),
  **dict.fromkeys(('shared_head_classes', 'warmup_steps'), 0),
  'features': -1,
}


class Settings(NamedTuple):
  """The arguments of `hypertransformer.make`, by the same names."""

  way: int
  net: str
  channels: int
  depth: int
  kernel_size: int
  stride: int
  activation: str
  norm: str
  trained_layers: int
  allocation: str
  generate_bias: bool
  generate_norm: bool
  add_learned: bool
  separate_norm: bool
  features: int
  logits_features: str
  logits_nonlinear: bool
  shared: str
  shared_dim: int
  shared_padding: str
  embedding: int
  generator: str
  decoder: bool
  layers: int
  heads: int
  key_query: float
  value: float
  inner: float
  attention: str
  nonlinearity: str
  skip_last_nonlinearity: bool
  dropout: float
  shared_dropout: float
  feature_dropout: float
  remove_labelled: float
  remove_unlabelled: float
  block_scale: float
  logits_scale: float
  label_smoothing: float
  l2_reg_weight: float
  variation_weight: float
  shared_head_weight: float
  shared_head_classes: int
  warmup_steps: int
  head: str
  stage: str


def check(s):
  """Raises `core.BadInput`, listing the choices, for wrong settings."""
  for name, known in (
    ('net', NETS),
    ('logits_features', LOGITS_FEATURES),
    ('shared', SHARED),
    ('shared_padding', PADDINGS),
    ('generator', GENERATORS),
    ('stage', STAGES),
    ('head', HEADS),
  ):
    if getattr(s, name) not in known:
      raise core.BadInput(
        f'{name}={getattr(s, name)!r} is unknown; choose one of '
        f'{", ".join(known)}'
      )
  for name, smallest in MINIMUM.items():
    if getattr(s, name) < smallest:
      raise core.BadInput(
        f'{name}={getattr(s, name)}; expected at least {smallest}'
      )
  for name in RATES:
    if getattr(s, name) >= 1:
      raise core.BadInput(f'{name}={getattr(s, name)}; expected below 1')
  for name in SHARES:
    if getattr(s, name) > 1:
      raise core.BadInput(f'{name}={getattr(s, name)}; expected at most 1')
  for name in ('key_query', 'value'):
    if getattr(s, name) <= 0:
      raise core.BadInput(f'{name}={getattr(s, name)}; expected above 0')
  weight_tokens.check_allocation(
    s.allocation, s.generate_bias + 2 * s.generate_norm
  )
  transformer.check(
    heads=s.heads, attention=s.attention, activation=s.nonlinearity
  )
  for size in (s.key_query, s.value, s.inner):
    transformer.inner_width(size, 1, s.heads)
  _check_together(s)


def _check_together(s):
  if abs(s.trained_layers) > s.depth:
    raise core.BadInput(
      f'trained_layers={s.trained_layers}; expected -depth..depth, '
      f'depth={s.depth}'
    )
  if s.generate_norm and s.norm == 'none':
    raise core.BadInput("generate_norm=True needs a norm, not norm='none'")
  if s.features == 0 and s.shared == 'none':
    raise core.BadInput(
      "features=0 with shared='none' leaves the samples without features; set "
      f'features >= 1 or shared to one of {", ".join(SHARED[1:])}'
    )
  own = s.logits_features != 'default' or s.logits_nonlinear
  if own and s.head == 'prototypes':
    raise core.BadInput(
      f'logits_features={s.logits_features!r} and logits_nonlinear='
      f"{s.logits_nonlinear} are of the last layer, which head='prototypes' "
      "does not write; leave them at 'default' and False"
    )
  if s.logits_nonlinear and s.logits_features == 'passthrough':
    raise core.BadInput(
      'logits_nonlinear=True is of a convolution, and logits_features='
      "'passthrough' has none; choose 'default' or 'mix'"
    )
  if s.skip_last_nonlinearity and not s.inner:
    raise core.BadInput(
      'skip_last_nonlinearity=True is of the feed-forward net, and inner=0 '
      'has none: set it to False'
    )
  if s.shared_dropout and s.shared == 'none':
    raise core.BadInput(
      f'shared_dropout={s.shared_dropout} drops shared features, and '
      "shared='none' has none: set it to 0"
    )
  if s.logits_features != 'default' and s.net != 'maxpool':
    raise core.BadInput(
      f"logits_features={s.logits_features!r} needs net='maxpool', whose last "
      'layer reads flattened activations'
    )
  if s.decoder and s.generator == 'separate':
    raise core.BadInput(
      "generator='separate' has a decoder anyway; set decoder=False"
    )
  if s.variation_weight and not s.add_learned:
    raise core.BadInput(
      f'variation_weight={s.variation_weight} compares written with learned '
      'weights; set add_learned=True'
    )
  needs_head = s.shared_head_weight or s.stage == 'shared'
  if needs_head and (s.shared == 'none' or not s.shared_head_classes):
    raise core.BadInput(
      'a head on the shared features needs shared features and '
      'shared_head_classes, the number of training classes, not '
      f'shared={s.shared!r} and shared_head_classes={s.shared_head_classes}'
    )
  if s.warmup_steps and s.depth < 2:
    raise core.BadInput(
      f'warmup_steps={s.warmup_steps} trains a head on each convolution but '
      f'the last, and depth={s.depth}'
    )
  learned_norm = s.norm != 'none' and not s.generate_norm
  if s.separate_norm and not (learned_norm and s.head == 'written'):
    raise core.BadInput(
      'separate_norm=True needs learned norms, whose activations write the '
      "next layer: a norm, generate_norm=False and head='written'"
    )
