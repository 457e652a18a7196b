"""Writing a CNN for an episode: base weights plus the generator's emission."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from hyperudl.learners.udl import generator
from hyperudl.nets import conv
from hyperudl.nets import vae as vae_net
from hyperudl.ops import losses
from hyperudl.ops import principal_components

EMIT = ('all', 'none')
CONDITIONS = ('posterior', 'pca', 'none')


class Writer(NamedTuple):
  """Static sizes of everything that takes part in the emission."""

  way: int
  cnn: conv.ConvNet
  settings: dict  # of `generator.Generator`
  shared: bool  # whether image tokens read the trunk of the frozen vae
  emit: bool  # False: the base weights and prototypes alone
  condition: str  # one of `CONDITIONS`
  latent: int  # of the frozen vae
  hidden: tuple  # of the frozen vae


def make_writer(
  way,
  *,
  channels=(32, 32, 64),
  width=64,
  layers=2,
  heads=4,
  trunk=(16, 32, 32),
  share_trunk=False,
  condition='posterior',
  emit='all',
  allocation='output',
  strength=0.1,
  norm='domain',
  vae_latent=24,
  vae_hidden=(256, 128),
):
  """The `Writer` of these settings.

  Args:
    way: N.
    channels: filters of the emitted CNN's stride-2 3x3 convolutions.
    width, layers, heads: of the transformer.
    trunk: channels of the feature extractor of the image tokens; () = none.
    share_trunk: image tokens read the layer of the frozen vae's encoder that
      its posterior reads, in place of a `trunk` of their own.
    condition: what the generator reads of each image beside its features:
      'posterior' of the frozen vae, 'pca' (`components.principal_scores` of the
      images of the episode, after HyperFast) or 'none'.
    emit: 'all', or 'none': a learned CNN and prototypes in place of emitted
      ones (an ablation).
    allocation: 'output' or 'spatial' (see `emit`).
    strength: initial size s of the emission.
    norm: of the CNN: 'layer', 'group', 'batch' (statistics of the images at
      hand, which is transductive) or 'domain' (labelled images by their own
      statistics, all others by those of the unlabelled images, which is not).
    vae_latent, vae_hidden: sizes of the upstream `vae`.

  Raises:
    ValueError: for an unknown `emit`.
  """
  if emit not in EMIT:
    raise ValueError(f'emit must be one of {EMIT}, not {emit!r}')
  cnn = conv.ConvNet(
    channels=tuple(channels), stride=2, pool=False, norm=norm, head=None
  )
  settings = {
    'width': width,
    'layers': layers,
    'heads': heads,
    'trunk': tuple(trunk),
    'allocation': allocation,
    'strength': strength,
  }
  hidden = tuple(vae_hidden)
  return Writer(
    way,
    cnn,
    settings,
    share_trunk,
    emit == 'all',
    condition,
    vae_latent,
    hidden,
  )


def init(writer, key, support):
  """Trainable parameters: 'cnn' (base weights), 'generator', 'log_scale'."""
  cnn_key, generator_key = jax.random.split(key)
  x, y = support.x, support.y
  cnn = writer.cnn.init(cnn_key, x[:1])['params']
  posterior = (jnp.zeros((x.shape[0], writer.latent)),) * 2
  features = jnp.zeros((x.shape[0], writer.hidden[-1]))
  net = _generator(writer, cnn, width(writer, cnn, x))
  variables = net.init(
    generator_key,
    x,
    y,
    posterior,
    jnp.ones(x.shape[0]),
    features if writer.shared else None,
  )
  return {
    'cnn': cnn,
    'generator': variables['params'],
    'log_scale': jnp.log(jnp.asarray(10.0, jnp.float32)),
  }


class Reference(NamedTuple):
  """The images whose statistics normalise others, for norm='domain'."""

  x: jax.Array  # f32[m, H, W, C]
  labelled: jax.Array  # f32[m], whether a row is of the clean domain
  present: jax.Array  # f32[m], whether it counts


def reference_of(support):
  """The `Reference` of a support: its rows, or `context['cond']` for -1."""
  x, labelled = support.x, (support.y >= 0).astype(jnp.float32)
  others = (support.context or {}).get('cond')
  if others is None:
    return Reference(x, labelled, jnp.ones_like(labelled))
  one = jnp.ones(others.shape[0])
  return Reference(
    jnp.concatenate([x, others]),
    jnp.concatenate([labelled, 0 * one]),
    jnp.concatenate([labelled, one]),
  )


class Seen(NamedTuple):
  """What the CNN of an episode makes of the rows of a support, in one pass."""

  features: jax.Array  # f32[m, D]
  statistics: dict | None  # see `statistics`; None without norm='domain'


def statistics(writer, weights, reference):
  """What normalises other images under CNN weights: {block: two f32[2, C]}.

  Args:
    writer: `Writer` with norm='domain'.
    weights: of its CNN.
    reference: `Reference`.
  """
  member = _sides(reference.labelled)
  part = member * reference.present[:, None]
  return _passed(writer, weights, reference.x, (member, part)).statistics


def look(writer, weights, x, labelled):
  """`Seen` of images f32[m, H, W, C], each normalised among those of its side.

  Args:
    writer: `Writer`.
    weights: of its CNN.
    x: the rows of a support.
    labelled: f32[m], which of them are of the clean domain.
  """
  if writer.cnn.norm != 'domain':
    return Seen(writer.cnn.apply({'params': weights}, x), None)
  member = _sides(labelled)
  return _passed(writer, weights, x, (member, member))


def _passed(writer, weights, x, domains):
  features, found = writer.cnn.apply(
    {'params': weights}, x, domains, mutable=['statistics']
  )
  used = {name: each['used'] for name, each in found['statistics'].items()}
  return Seen(features, used)


def embed(writer, weights, x, labelled=None, known=None):
  """Features f32[n, D] of images under CNN weights.

  Args:
    writer: `Writer`.
    weights: of its CNN.
    x: f32[n, H, W, C].
    labelled: f32[n], rows of the clean domain; None for none. With
      norm='domain' they are normalised apart from the others.
    known: `statistics` to use in place of those of x: no image of x then
      matters to another.
  """
  if writer.cnn.norm != 'domain':
    return writer.cnn.apply({'params': weights}, x)
  if labelled is None:
    labelled = jnp.zeros(x.shape[0])
  member = _sides(labelled)
  domains = member, member if known is None else known
  return writer.cnn.apply({'params': weights}, x, domains)


def _sides(labelled):
  return jnp.stack([labelled, 1 - labelled], axis=1)


def width(writer, weights, x):
  """D, the number of features."""
  shape = jax.eval_shape(lambda: embed(writer, weights, x[:1]))
  return shape.shape[-1]


def logits(base, features, head):
  """tau cos(features, head): f32[n, D], f32[N, D] -> f32[n, N]."""
  scale = jnp.exp(base['log_scale'])
  return scale * losses.unit(features) @ losses.unit(head).T


def encode(writer, vae, x):
  """Posterior of images under the vae's parameters: two f32[n, L]."""
  net, variables = _vae(writer, vae, x)
  return net.apply(variables, x, method='encode')


def reconstruct(writer, vae, x):
  """ELBO terms of images at the posterior mean; see `VAE.__call__`."""
  net, variables = _vae(writer, vae, x)
  return net.apply(variables, x, jnp.zeros((x.shape[0], writer.latent)))


def write(writer, base, vae, support, shift=None):
  """The CNN and head for one episode.

  Args:
    writer: `Writer`.
    base: from `init`.
    vae: parameters of the frozen vae.
    support: Examples; `context` may hold 'emit_from' (Examples with a leading
      axis: the mean of what they emit is taken) or 'cond' (images in place of
      the unlabelled rows), see the design of placebos.
    shift: f32[2, width] added to the tokens of the sets, or None.

  Returns:
    (weights: block -> {'kernel', 'scale', 'bias'}, head f32[N, D], `Seen` of
    the support). The head is anchored at the class means of the support's own
    features.
  """
  context = support.context or {}
  x, y = support.x, support.y
  labelled = (y >= 0).astype(jnp.float32)
  emit = lambda *rows: _corrections(writer, base, vae, *rows, shift)
  if not writer.emit:
    weights = base['cnn']
    seen = look(writer, weights, x, labelled)
    return weights, losses.class_means(seen.features, y, writer.way), seen
  if 'emit_from' in context:
    others = context['emit_from']
    every = jax.vmap(lambda x, y: emit(x, y, jnp.ones(y.shape)))(
      others.x, others.y
    )
    corrections = jax.tree.map(lambda leaf: leaf.mean(axis=0), every)
  elif 'cond' in context:
    rows = context['cond'].shape[0]
    corrections = emit(
      jnp.concatenate([x, context['cond']]),
      jnp.concatenate([y, jnp.full((rows,), -1, y.dtype)]),
      jnp.concatenate([(y >= 0).astype(jnp.float32), jnp.ones(rows)]),
    )
  else:
    corrections = emit(x, y, jnp.ones(y.shape))
  weights = {
    name: {k: v + corrections[name].get(k, 0.0) for k, v in block.items()}
    for name, block in base['cnn'].items()
  }
  seen = look(writer, weights, x, labelled)
  prototypes = losses.class_means(seen.features, y, writer.way)
  return weights, prototypes + corrections['head'], seen


def filters(weights):
  """First-layer kernels as images f32[cout, k, k, 1] scaled to [0, 1]."""
  kernel = weights['block0']['kernel'].mean(axis=2, keepdims=True)
  kernel = jnp.moveaxis(kernel, -1, 0)
  low, high = kernel.min(), kernel.max()
  return (kernel - low) / (high - low + 1e-6)


def _vae(writer, vae, x):
  net = vae_net.VAE(tuple(x.shape[1:]), writer.latent, writer.hidden)
  return net, {'params': vae['net']}


def _trunk(writer, vae, x):
  net, variables = _vae(writer, vae, x)
  return net.apply(variables, x, method='trunk')


def _generator(writer, cnn, features):
  kernels = tuple((name, cnn[name]['kernel'].shape) for name in sorted(cnn))
  return generator.Generator(
    kernels=kernels, features=features, way=writer.way, **writer.settings
  )


def _corrections(writer, base, vae, x, y, mask, shift):
  net = _generator(writer, base['cnn'], width(writer, base['cnn'], x))
  posterior = _condition(writer, vae, x, mask)
  features = _trunk(writer, vae, x) if writer.shared else None
  variables = {'params': base['generator']}
  return net.apply(variables, x, y, posterior, mask, features, shift)


def _condition(writer, vae, x, mask):
  """What the generator reads of each image: two f32[n, L]."""
  if writer.condition == 'posterior':
    return encode(writer, vae, x)
  zeros = jnp.zeros((x.shape[0], writer.latent), x.dtype)
  if writer.condition == 'none':
    return zeros, zeros
  return principal_components.principal_scores(x, mask, writer.latent), zeros
