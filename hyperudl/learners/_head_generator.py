"""Linear heads that a hypernetwork writes for a task: HyperMAML's parts.

`learners/hypermaml.py` says what they are for.
"""

from typing import NamedTuple

from flax import linen as nn
import jax
import jax.numpy as jnp

from hyperudl.nets import backbones
from hyperudl.ops import losses

AGGREGATIONS = ('concat', 'mean')
UPDATES = ('minus', 'plus', 'multiply')
LABELS = ('one_hot', 'index', 'none')


class Hypernetwork(nn.Module):
  """f32[N, F] -> f32[N, out]: a perceptron with ReLU, the same for each row.

  Attributes:
    hidden: width.
    layers: how many linear layers, >= 2.
    out: width of the last.
  """

  hidden: int
  layers: int
  out: int

  @nn.compact
  def __call__(self, x):
    for _ in range(self.layers - 1):
      x = jax.nn.relu(nn.Dense(self.hidden)(x))
    return nn.Dense(self.out)(x)


class Settings(NamedTuple):
  """The arguments of `make`, by the same names."""

  way: int
  backbone: str
  channels: tuple
  norm: str
  features: str
  hidden: int
  layers: int
  enhance: bool
  labels: str
  aggregation: str
  update: str
  detach_features: bool
  detach_hypernetwork: bool
  delta_weight: float
  support_loss: bool
  warmup_steps: int
  switch_steps: int
  inner_steps: int
  inner_rate: float
  finetune_steps: int
  finetune_rate: float


def check(s):
  """Raises ValueError for an unknown choice or a number out of range."""
  for name, choices in (
    ('aggregation', AGGREGATIONS),
    ('update', UPDATES),
    ('labels', LABELS),
  ):
    if getattr(s, name) not in choices:
      raise ValueError(
        f'{name} must be one of {choices}, not {getattr(s, name)!r}'
      )
  counts = (s.warmup_steps, s.switch_steps, s.finetune_steps)
  if min(counts) < 0 or min(s.hidden, s.inner_steps) < 1 or s.layers < 2:
    raise ValueError(
      'warmup_steps, switch_steps and finetune_steps must be >= 0, hidden and '
      'inner_steps >= 1 and layers >= 2, not '
      f'{(*counts, s.hidden, s.inner_steps)} and {s.layers}'
    )
  trunk_net(s)  # checks its own choices


def trunk_net(s):
  """The embedding's module."""
  return backbones.make(s.backbone, s.channels, s.norm, features=s.features)


def embed(s, trunk, x):
  """Embeddings f32[n, D] of images f32[n, H, W, C]."""
  z = trunk_net(s).apply({'params': trunk}, x)
  return jax.lax.stop_gradient(z) if s.detach_features else z


def linear(head, z):
  """Logits f32[n, N] of embeddings under {'kernel', 'bias'}."""
  return z @ head['kernel'] + head['bias']


def class_inputs(s, head, z, y):
  """f32[N, F], what the hypernetwork sees of each class."""
  parts = [z]
  if s.enhance:
    guess = jax.nn.softmax(linear(head, z))
    parts.append(jax.lax.stop_gradient(guess))
  if s.labels == 'one_hot':
    parts.append(jax.nn.one_hot(y, s.way))
  elif s.labels == 'index':
    parts.append(y[:, None].astype(z.dtype))
  rows = jnp.concatenate(parts, axis=-1)
  if s.detach_hypernetwork:
    rows = jax.lax.stop_gradient(rows)
  if s.aggregation == 'mean':
    return losses.class_means(rows, y, s.way)
  return _side_by_side(rows, y, s.way)


def emitted(s, params, z, y, outputs=1):
  """What the hypernetwork emits: list of `outputs` {'kernel', 'bias'}."""
  width = z.shape[-1] + 1
  out = Hypernetwork(s.hidden, s.layers, outputs * width).apply(
    {'params': params['hypernetwork']},
    class_inputs(s, params['head'], z, y),
  )
  parts = jnp.split(out, outputs, axis=-1)
  return [{'kernel': p[:, :-1].T, 'bias': p[:, -1]} for p in parts]


def moved(s, head, delta, z, y, share):
  """The head of a task: gradient steps with the share p, then delta.

  Args:
    s: `Settings`.
    head: the universal one.
    delta: from `emitted`.
    z, y: f32[S, D] and i32[S], the support.
    share: f32[], p.
  """

  def by_gradient(head):
    def step(head, _):
      fit = lambda head: losses.cross_entropy(linear(head, z), y)
      move = lambda v, g: v - share * s.inner_rate * g
      return jax.tree.map(move, head, jax.grad(fit)(head)), None

    return jax.lax.scan(step, head, length=s.inner_steps)[0]

  if s.warmup_steps or s.switch_steps:
    head = jax.lax.cond(share > 0, by_gradient, lambda head: head, head)
  apply = {
    'minus': lambda v, d: v - d,
    'plus': lambda v, d: v + d,
    'multiply': lambda v, d: v * d,
  }[s.update]
  changed = jax.tree.map(apply, head, delta)
  blend = lambda v, c: share * v + (1 - share) * c
  return jax.tree.map(blend, head, changed)


def gradient_share(step, warmup_steps, switch_steps):
  """p f32[]: 1 for `warmup_steps`, then falling to 0 in `switch_steps`.

  p = (W + S - t) / (S + 1) for W <= t < W + S.
  """
  left = warmup_steps + switch_steps - step
  share = jnp.clip(left / (switch_steps + 1), 0.0, 1.0)
  return jnp.where(step < warmup_steps, 1.0, share).astype(jnp.float32)


def _side_by_side(rows, y, way):
  """f32[S, F] -> f32[N, K F]: the rows of each class in their order.

  K is S / N; a class with fewer labelled rows ends in zeros.
  """
  shots = rows.shape[0] // way
  one_hot = jax.nn.one_hot(y, way, dtype=rows.dtype)
  place = jnp.sum((jnp.cumsum(one_hot, axis=0) - 1) * one_hot, axis=1)
  slot = jax.nn.one_hot(place.astype(jnp.int32), shots, dtype=rows.dtype)
  placed = jnp.einsum('ic,ik,if->ckf', one_hot, slot, rows)
  return placed.reshape(way, -1)
