"""The adapted variable v of `udl`: what its label-free steps change.

v is a dict of parts, all zeros at v_0, under which nothing changes:

* film: an increment to scale and bias of every norm of the CNN;
* weights: an increment to every number of the CNN;
* head: an increment to the prototypes;
* transform: the input canonicaliser (`nets/canonical.py`) of unlabelled
  images and queries;
* tokens: an increment to the two tokens that describe the sets of images;
* encoder: an increment to the posterior layer of the frozen vae;
* hyper: an increment to every parameter of the generator.

The last four change what the generator reads or does, so the CNN is written
anew from them at every step.
"""

import jax
import jax.numpy as jnp

from hyperudl.ops import gradient_descent
from hyperudl.ops import input_transform

PARTS = (
  'film',
  'weights',
  'head',
  'transform',
  'tokens',
  'encoder',
  'hyper',
)
REWRITING = ('transform', 'tokens', 'encoder', 'hyper')
# Parts that the gradient of a loss on ... reaches.
REACH = {
  'images': ('transform', 'encoder'),
  'features': tuple(part for part in PARTS if part != 'head'),
  'predictions': PARTS,
}
# One number per step and element; the others have one per step and leaf.
_ELEMENTWISE = ('film', 'tokens')


def parse(adapt):
  """'film+head' -> ('film', 'head').

  Raises:
    ValueError: for an unknown part or one that is named twice.
  """
  parts = tuple(adapt.split('+'))
  unknown = [part for part in parts if part not in PARTS]
  if unknown or len(set(parts)) < len(parts):
    raise ValueError(
      f'adapt must be one of {PARTS} or several joined by +, not {adapt!r}'
    )
  return parts


def rewrites(adapt):
  """Whether the network has to be written anew for every value of v."""
  return any(part in REWRITING for part in parse(adapt))


def identity(adapt, base, vae, head):
  """v_0: a dict of float32 zeros.

  Args:
    adapt: see `parse`.
    base: from `writing.init`.
    vae: 'net' parameters of the frozen vae.
    head: f32[N, D], for the shape.
  """
  cnn = base['cnn'].values()
  size = sum(block['scale'].size + block['bias'].size for block in cnn)
  width = base['generator']['labels'].shape[-1]
  make = {
    'film': lambda: jnp.zeros((size,), jnp.float32),
    'weights': lambda: _zeros(base['cnn']),
    'head': lambda: jnp.zeros(head.shape, jnp.float32),
    'transform': input_transform.identity,
    'tokens': lambda: jnp.zeros((2, width), jnp.float32),
    'encoder': lambda: _zeros(vae['posterior']),
    'hyper': lambda: _zeros(base['generator']),
  }
  return {part: make[part]() for part in parse(adapt)}


def _zeros(tree):
  return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, jnp.float32), tree)


def rates(value, steps, rate):
  """Initial step sizes for `inner.descend`: a pytree like `value`.

  Args:
    value: v_0.
    steps: K >= 1.
    rate: of a gradient of length one; for the transform in units of
      `canonical.RATES`.
  """
  made = {}
  for part, leaf in value.items():
    mode = 'element' if part in _ELEMENTWISE else 'step'
    made[part] = gradient_descent.make_rates(leaf, steps, rate, mode)
  if 'transform' in value:
    made['transform'] = {
      name: made['transform'][name] * unit
      for name, unit in input_transform.RATES.items()
    }
  return made


def film(weights, increment):
  """`weights` with the flat f32[F] added to every scale and bias."""
  new, start = {}, 0
  for name in sorted(weights):
    new[name] = dict(weights[name])
    for leaf in ('scale', 'bias'):
      stop = start + weights[name][leaf].size
      new[name][leaf] = weights[name][leaf] + increment[start:stop]
      start = stop
  return new


def see(value, x):
  """Images f32[n, H, W, C] as the network sees them under v."""
  return (
    input_transform.apply(value['transform'], x) if 'transform' in value else x
  )


def see_unlabelled(value, support):
  """The support with its -1 rows, and `context['cond']`, seen under v."""
  if 'transform' not in value:
    return support
  unlabelled = (support.y < 0)[:, None, None, None]
  x = jnp.where(unlabelled, see(value, support.x), support.x)
  context = dict(support.context or {})
  if 'cond' in context:
    context['cond'] = see(value, context['cond'])
  return support._replace(x=x, context=context or None)


def add(tree, increment):
  """Leafwise sum; `tree` itself where there is no increment."""
  if increment is None:
    return tree
  return jax.tree.map(jnp.add, tree, increment)


def network(value, weights, head):
  """(CNN weights, head f32[N, D]) with the increments of v."""
  weights = add(weights, value.get('weights'))
  if 'film' in value:
    weights = film(weights, value['film'])
  return weights, add(head, value.get('head'))
