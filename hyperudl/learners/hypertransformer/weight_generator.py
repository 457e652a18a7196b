"""Generates a CNN layer by layer from the activations of a support set.

The generator of HyperTransformer (arXiv:2201.04182): each layer is generated
from the support's activations after the layers generated before it.
"""

from typing import NamedTuple

from flax import linen as nn
import jax
import jax.numpy as jnp

from hyperudl import core
from hyperudl.learners.hypertransformer import config as config_lib
from hyperudl.learners.hypertransformer import feature_extractors
from hyperudl.learners.hypertransformer import layer_generator
from hyperudl.learners.hypertransformer import target_network
from hyperudl.nets import label_encodings
from hyperudl.ops import conv
from hyperudl.ops import normalization
from hyperudl.ops import weight_tokens


class Conditioning(NamedTuple):
  """Optional inputs of the generator, for sequences of tasks."""

  previous_weights: core.PyTree | None = None  # CNN of the previous task
  # f32[]: the generated parameters times this factor are added to the previous
  # ones; None: they replace them.
  residual_scale: jax.Array | None = None
  removed: jax.Array | None = None  # f32[S], 1 masks a row in attention


UNCONDITIONED = Conditioning()


class WeightGenerator(nn.Module):
  """Generates the parameters of the CNN of one episode."""

  config: config_lib.Config

  @nn.compact
  def __call__(
    self,
    learned: dict[str, core.PyTree],
    support_norms: dict[str, core.PyTree],
    support: core.Examples,
    shared: jax.Array,
    train: bool,
    conditioning: Conditioning = UNCONDITIONED,
  ) -> dict[str, core.PyTree]:
    """Return the parameters of the CNN.

    Args:
      learned: learned parameters, see `target_network.learned_part`.
      support_norms: scales and biases of norms to use for the support's
        activations in place of those of the CNN, or {}.
      support: images in [0, 1] and labels.
      shared: f32[S, Fs], image features.
      train: whether dropout and the removal of rows are on.
      conditioning: optional inputs for sequences of tasks.
    """
    config, z = self.config, target_network.scale_pixels(support.x)
    specs = target_network.layer_specs(config, z)
    roles = target_network.roles(config, specs)
    if train:
      conditioning = self._mask_rows(conditioning, support.y)
    # Rows that attention does not see are not in the features' statistics.
    removed = conditioning.removed
    present = None if removed is None else 1.0 - removed
    if config.token_features == 'standardised':
      shared = normalization.standardise(shared, present)
    shared = nn.Dropout(config.shared_dropout, deterministic=not train)(shared)
    slots = self._slots(support)
    domains = target_network.counted_rows(config, support.y)
    cnn = {}
    for spec in specs:
      name, (generated, zero) = spec.name, roles[spec.name]
      layer = {**learned.get(name, {}), **target_network.zeros(spec, zero)}
      if generated:
        features = self._features(spec, z, shared, present, train)
        labels = support.y, slots
        layer |= self._layer(
          spec, generated, layer, features, labels, train, conditioning
        )
      cnn[name] = layer
      if not spec.is_head:
        params = {**layer, **support_norms.get(name, {})}
        z = spec.block.apply({'params': params}, z, domains)
        z = conv.at_least_float32(z)
    return cnn

  def _mask_rows(self, conditioning, y):
    """Return the inputs with the rows that training masks masked as well."""
    config = self.config
    if not (config.remove_labelled or config.remove_unlabelled):
      return conditioning
    removed = draw_removed(config, self.make_rng('dropout'), y)
    if conditioning.removed is not None:
      removed = jnp.maximum(removed, conditioning.removed)
    return conditioning._replace(removed=removed)

  def _slots(self, support):
    """Return which vector of the table encodes each class, if there is one."""
    if self.config.label_encoding == 'learned':
      return None
    return label_encodings.assign(support.x, support.y, self.config.way)

  def _features(self, spec, z, shared, present, train):
    """Return the features of all samples: of the layer, if any, and shared."""
    config, parts = self.config, []
    if spec.is_head and config.logits_features != 'default':
      parts.append(z.reshape(z.shape[0], -1))
    if config.features and not (
      parts and config.logits_features == 'passthrough'
    ):
      extract = feature_extractors.make_for_layer(config, spec, z.shape[-1])
      parts.append(extract(z))
    if config.token_features == 'standardised':
      parts = [normalization.standardise(part, present) for part in parts]
    if parts:
      drop = nn.Dropout(config.feature_dropout, deterministic=not train)
      parts = [drop(jnp.concatenate(parts, axis=-1))]
    return jnp.concatenate([*parts, shared], axis=-1)

  def _layer(self, spec, names, learned, features, labels, train, conditioning):
    """Generate the parameters `names` of a layer, the kernel first."""
    config, shape, extras = self.config, spec.kernel_shape, names[1:]
    allocation = 'output' if spec.is_head else config.allocation
    size = weight_tokens.slices_shape(shape, allocation, len(extras))
    before = previous = None
    if conditioning.previous_weights is not None:
      before = conditioning.previous_weights[spec.name]
      previous = weight_tokens.disassemble(before, allocation, extras)
    slices = layer_generator.LayerGenerator(
      config, *size, spec.is_head, name=spec.name
    )(
      features,
      *labels,
      train=train,
      removed=conditioning.removed,
      previous=previous,
    )
    scale = config.logits_scale if spec.is_head else config.block_scale
    if scale:
      prefix = 'logits' if spec.is_head else spec.name
      init = lambda _: jnp.asarray(scale, jnp.float32)
      slices = slices * self.param(f'{prefix}_scale', init)
    layer = weight_tokens.assemble(slices, shape, allocation, extras)
    if conditioning.residual_scale is not None:
      add = lambda old, new: old + conditioning.residual_scale * new
      layer = jax.tree.map(add, {k: before[k] for k in layer}, layer)
    if config.add_learned:
      layer = {name: value + learned[name] for name, value in layer.items()}
    return layer


def draw_removed(
  config: config_lib.Config, key: jax.Array, y: jax.Array
) -> jax.Array:
  """Draw the support rows f32[S] that training masks in attention.

  For each episode one probability q ~ U(0, p) is drawn for labelled rows and
  one for unlabelled rows.
  """
  keys = jax.random.split(key)
  largest = jnp.array([config.remove_labelled, config.remove_unlabelled])
  fractions = largest * jax.random.uniform(keys[0], (2,))
  fraction = jnp.where(y < 0, fractions[1], fractions[0])
  return (jax.random.uniform(keys[1], y.shape) < fraction).astype(jnp.float32)


def generate(
  config: config_lib.Config,
  params: core.PyTree,
  support: core.Examples,
  key: jax.Array,
  train: bool,
  conditioning: Conditioning = UNCONDITIONED,
) -> dict[str, core.PyTree]:
  """Return the parameters of the CNN for one support.

  Args:
    config: hyperparameters.
    params: of the learner.
    support: images in [0, 1] and labels.
    key: PRNG key of dropout and removal.
    train: whether these are on.
    conditioning: optional inputs for sequences of tasks.
  """
  if config.varies:
    removed = (support.y == core.NO_IMAGE).astype(jnp.float32)
    conditioning = conditioning._replace(removed=removed)
  return WeightGenerator(config).apply(
    {'params': params['writer']},
    params.get('net', {}),
    params.get('support_norms', {}),
    support,
    feature_extractors.shared_features(config, params, support.x),
    train,
    conditioning,
    rngs={'dropout': key},
  )
