"""Defines the hyperparameters of `hypertransformer` and `continual`."""

import dataclasses
from typing import Literal

from hyperudl import core
from hyperudl.core import hyperparameters
from hyperudl.core.hyperparameters import field
from hyperudl.nets import backbones
from hyperudl.nets import label_encodings
from hyperudl.nets import transformer
from hyperudl.ops import weight_tokens


@dataclasses.dataclass(frozen=True)
class GeneratorConfig:
  """Hyperparameters of the CNN and its weight generator, for both learners."""

  way: int = field(5, at_least=1)
  # 'maxpool' (SAME convolutions, 2x2 pooling, flattened), 'strided' (VALID
  # convolutions, mean over positions) or a backbone that is a chain of layers.
  net: Literal[('maxpool', 'strided', *backbones.BACKBONES)] = 'maxpool'  # type: ignore[valid-type]
  channels: int = field(8, at_least=1)  # filters of each convolution
  depth: int = field(4, at_least=1)  # convolutions
  kernel_size: int = field(3, at_least=1)
  stride: int = field(1, at_least=1)  # of each convolution
  activation: Literal['relu', 'lrelu'] = 'relu'  # lrelu: slope 0.01
  norm: backbones.Norm = 'batch'
  # n > 0: the first n convolutions are learned, not generated; n < 0: the last
  # |n|. If that is all of them, only the logits layer is generated.
  trained_layers: int = 0
  allocation: Literal['output', 'spatial'] = 'output'  # ops/weight_tokens.py
  generate_bias: bool = False  # of convolutions; False: they have none
  # Generate the scale and bias of each norm; False: these are learned.
  generate_norm: bool = False
  add_learned: bool = False  # add learned weights to all generated ones
  # Learn separate norms for the support's and for the queries' activations.
  separate_norm: bool = False
  # Filters of the layer features; 0: no layer features; -1: the larger of the
  # layer's numbers of input and output channels.
  features: int = field(8, at_least=-1)
  # Features of the last layer: 'default' (a convolution), 'passthrough' (its
  # input activations) or 'mix' (both).
  logits_features: Literal['default', 'passthrough', 'mix'] = 'default'
  logits_nonlinear: bool = False  # apply a ReLU to those of the convolution
  # Image features that all layers get; '-bn': with batch norm over the support.
  shared: Literal[
    'none',
    *('2-layer', '3-layer', '4-layer'),
    *('2-layer-bn', '3-layer-bn', '4-layer-bn'),
  ] = '4-layer'
  shared_dim: int = field(32, at_least=1)  # number of shared features
  shared_padding: Literal['SAME', 'VALID'] = 'SAME'
  # Initial kernels of the shared features. 'glorot' is the reference's, whose
  # features hardly differ between images at first; 'he' keeps their variance.
  shared_init: Literal['glorot', 'he'] = 'glorot'
  # Features in sample tokens; 'standardised': to mean 0 and variance 1 over the
  # support, so that images differ as much as labels from the start.
  token_features: Literal['given', 'standardised'] = 'given'
  embedding: int = field(32, at_least=1)  # width, of labels and weight slices
  # 'joint': one encoder over tokens of weight slices and samples; 'separate':
  # an encoder of the samples and a decoder of the weight slices.
  generator: Literal['joint', 'separate'] = 'joint'
  decoder: bool = False  # add a decoder after the joint encoder
  layers: int = field(3, at_least=1)  # of each encoder and decoder
  heads: int = field(2, at_least=1)  # attention heads
  # Widths in the encoder: values up to 3 are multiples of its width, larger
  # ones absolute.
  key_query: float = field(1.0, above=0)
  value: float = field(1.0, above=0)
  inner: float = field(1.0, at_least=0)  # 0: no feed-forward net
  attention: Literal['softmax', 'sigmoid'] = 'softmax'
  nonlinearity: Literal['relu', 'gelu', 'lrelu'] = 'relu'  # lrelu: slope 0.1
  skip_last_nonlinearity: bool = False  # last feed-forward net is linear
  dropout: float = field(0.0, at_least=0, below=1)  # in the encoders
  shared_dropout: float = field(0.0, at_least=0, below=1)  # on shared features
  feature_dropout: float = field(0.0, at_least=0, below=1)  # on layer features
  # In training each labelled (or unlabelled) support row is masked in attention
  # with a probability drawn for each episode from U(0, p), where p is this
  # value.
  remove_labelled: float = field(0.0, at_least=0, at_most=1)
  remove_unlabelled: float = field(0.0, at_least=0, at_most=1)
  # Initial value of a learned factor of the generated weights of each
  # convolution and of the logits layer; 0: no factor (as in the reference).
  # Generated weights have unit variance, so a wide logits layer starts with
  # large logits, where 1 / sqrt(D) helps. Convolutions followed by a norm need
  # no factor.
  block_scale: float = field(0.0, at_least=0)
  logits_scale: float = field(0.0, at_least=0)

  def __post_init__(self):
    hyperparameters.check(self)
    weight_tokens.check_allocation(
      self.allocation, self.generate_bias + 2 * self.generate_norm
    )
    for size in (self.key_query, self.value, self.inner):
      transformer.inner_width(size, 1, self.heads)
    has_shared = self.shared != 'none', "shared features, not shared='none'"
    has_plain_convs = self.kernel_size == 3 and self.stride == 1
    _check_needs(
      self,
      trained_layers=(
        abs(self.trained_layers) <= self.depth,
        f'depth >= {abs(self.trained_layers)}, not depth={self.depth}',
      ),
      net=(
        self.net not in backbones.BACKBONES
        or (has_plain_convs and self.activation == 'relu'),
        "kernel_size=3, stride=1 and activation='relu', which it has by itself",
      ),
      generate_norm=(self.norm != 'none', "a norm, not norm='none'"),
      shared=(
        self.shared != 'none' or self.features != 0,
        'features >= 1 or -1, or the samples are without features',
      ),
      logits_nonlinear=(
        self.logits_features != 'passthrough',
        "a convolution: logits_features 'default' or 'mix'",
      ),
      logits_features=(
        self.net != 'strided',
        "net='maxpool', whose last layer reads flattened activations",
      ),
      shared_dropout=has_shared,
      shared_init=has_shared,
      decoder=(
        self.generator == 'joint',
        "generator='joint'; 'separate' has a decoder anyway",
      ),
      skip_last_nonlinearity=(
        self.inner > 0,
        'a feed-forward net, and inner=0 has none',
      ),
    )


@dataclasses.dataclass(frozen=True)
class Config(GeneratorConfig):
  """Hyperparameters of `hypertransformer`."""

  label_smoothing: float = field(0.0, at_least=0, below=1)  # of all losses
  # Weight of the sum of squares of all kernels in the loss.
  l2_reg_weight: float = field(0.0, at_least=0)
  # Weight of |generated|^2 / |learned|^2 of each convolution in the loss; needs
  # add_learned.
  variation_weight: float = field(0.0, at_least=0)
  # Weight of the cross-entropy of a linear layer that predicts from the shared
  # features which training class an image of the support is.
  shared_head_weight: float = field(0.0, at_least=0)
  shared_head_classes: int = field(0, at_least=0)  # number of training classes
  # W > 0: layers are trained one after another at first. Each convolution but
  # the last has a learned linear head on its mean query activations, and the
  # weight of the loss moves from head to head until outer step W.
  warmup_steps: int = field(0, at_least=0)
  # 'written': the logits layer is generated. 'prototypes': logits are negative
  # squared distances to class means of the last activations, times a learned
  # factor with initial value logits_scale if that is not 0. 'class_weights': so
  # with generated weights that start as class means; see `class_weights.py`.
  head: Literal['written', 'prototypes', 'class_weights'] = 'written'
  class_layers: int = field(1, at_least=0)  # of attention over the classes
  class_width: int = field(64, at_least=1)  # of the tokens of classes
  # 'shared': only train the shared features and their head, for a later run
  # with `init_from.shared`; `adapt` then returns class means of shared
  # features.
  stage: Literal['all', 'shared'] = 'all'
  # Vectors of labels in tokens; those other than 'learned' are for any number
  # of classes up to 20, see `nets/label_encodings.py`.
  label_encoding: label_encodings.Kind = 'learned'
  varies: bool = False  # see `learners.make`

  def __post_init__(self):
    super().__post_init__()
    label_encodings.check(self.label_encoding, self.way, self.embedding)
    written = self.head == 'written'
    has_logits = (
      written,
      "head='written': prototypes have no generated layer of logits",
    )
    has_class_weights = self.head == 'class_weights', "head='class_weights'"
    can_classify = (
      self.shared != 'none' and self.shared_head_classes > 0,
      'shared features and shared_head_classes, the number of training '
      f'classes, not shared={self.shared!r} and shared_head_classes='
      f'{self.shared_head_classes}',
    )
    _check_needs(
      self,
      logits_features=has_logits,
      logits_nonlinear=has_logits,
      class_layers=has_class_weights,
      class_width=has_class_weights,
      variation_weight=(
        self.add_learned,
        'add_learned=True: it compares generated with learned weights',
      ),
      shared_head_weight=can_classify,
      stage=can_classify,
      label_encoding=(
        not written,
        "head='prototypes' or 'class_weights', whose weights have no labels",
      ),
      warmup_steps=(
        self.depth >= 2,
        'depth >= 2: it trains a head on each convolution but the last',
      ),
      separate_norm=(
        self.norm != 'none' and not self.generate_norm and written,
        'learned norms, whose activations generate the next layer: a norm, '
        "generate_norm=False and head='written'",
      ),
    )
    uses_all = self.stage == 'shared' or self.shared.endswith('-bn')
    if self.varies and (written or self.label_smoothing or uses_all):
      raise core.BadInput(
        "episode.way_range and .shot_range need head='prototypes' or 'class_"
        "weights', label_smoothing=0, stage='all' and shared without batch norm"
      )


@dataclasses.dataclass(frozen=True)
class ContinualConfig(GeneratorConfig):
  """Hyperparameters of `continual`."""

  # 'continual', or a baseline: 'reset' starts every task from zero weight
  # slices, 'constant' is ConstPN, 'merged' MergedHT.
  kind: Literal['continual', 'reset', 'constant', 'merged'] = 'continual'
  # Classes in the loss: 'class', those of all tasks so far; 'task', those of
  # the query's task. Metrics include both. 'batches': the support of one task
  # arrives in parts.
  scenario: Literal['class', 'task', 'batches'] = 'class'
  # T in training: kind='merged' has labels for that many tasks, and
  # scenario='batches' divides the support into that many parts.
  tasks: int = field(5, at_least=1)
  # g > 0: generate differences, theta_t = theta_(t-1) + g HT(S_t, theta_(t-1)),
  # from the second task on (ours, not in the paper). 0: generate every network
  # from scratch.
  change: float = field(0.0, at_least=0)
  # Not 'batch': its statistics would reveal which task the queries belong to.
  norm: backbones.Norm = 'layer'
  # Initial value of the learned factor of squared distances.
  logits_scale: float = field(0.1, at_least=0)

  def __post_init__(self):
    super().__post_init__()
    uses_batch = self.norm == 'batch' or self.shared.endswith('-bn')
    _check_needs(
      self,
      scenario=(
        self.scenario != 'batches' or self.kind != 'merged',
        "another kind than 'merged', which needs tasks",
      ),
      change=(
        self.kind == 'continual' and not self.add_learned,
        f"kind='continual' and add_learned=False, not kind={self.kind!r} and "
        f'add_learned={self.add_learned}',
      ),
      kind=(
        self.kind != 'merged' or not uses_batch,
        f'another norm than {self.norm!r} and shared than {self.shared!r}: '
        'batch statistics would use later tasks',
      ),
    )
    self.network()  # checks the config of each CNN

  def network(self) -> Config:
    """Return the config of the HyperTransformer that generates each CNN."""
    inherited = {
      each.name: getattr(self, each.name)
      for each in dataclasses.fields(GeneratorConfig)
    }
    network = Config(**inherited, head='prototypes')
    if self.kind == 'merged':
      return dataclasses.replace(network, way=self.way * self.tasks)
    if self.kind == 'constant':
      # The whole CNN is learned, so no features are needed to generate weights.
      return dataclasses.replace(
        network,
        trained_layers=self.depth,
        shared='none',
        features=1,
        shared_dropout=0.0,
        shared_init='glorot',
      )
    return network


def _check_needs(config: GeneratorConfig, **needs: tuple[bool, str]) -> None:
  """Refuse non-default values of fields whose requirement is not met.

  Args:
    config: hyperparameters.
    **needs: for each field, (whether its requirement is met, the requirement in
      words).
  """
  defaults = hyperparameters.defaults(type(config))
  for name, (is_met, words) in needs.items():
    value = getattr(config, name)
    if value != defaults[name] and not is_met:
      raise core.BadInput(f'{name}={value!r} needs {words}')
