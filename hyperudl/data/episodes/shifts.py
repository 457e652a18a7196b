"""Shifts the distribution of images: one family and strength per episode.

The families form four disjoint groups (only `clean` is in two of them), so that
a network can be trained on one, learn to adapt on the second and be tested on
the third. s ~ U(.3, .9), u ~ U(0, 1) and r ~ U(.3, 1) are drawn once per call,
N (standard normal) for each pixel, channel and image:

  training    clean; contrast x (1 - s) + s u; polarity 1 - r x;
              noise x + .5 r N; blur (taps 1 2 3 2 1, twice);
              zoom (out, by 1 + .6 r)
  adaptation  clean; strong_noise x + U(.5, 1) N;
              stretch (z rows, 1/z columns, |log z| in U(.3, .6));
              stripes x + U(.3, .8) sin(w.r + phase), |w| in U(.5, 1.5) per
              pixel; rotation by +-U(.35, .7) rad;
              polarity_noise 1 - r x + U(.15, .6) N
  heldout     shear by +-U(.5, .8); pixelate to a third of the resolution;
              salt_and_pepper on 20% of the pixels
  fresh       occlusion by a square of 3/8 of the side and one value U(0, 1),
              placed anew in each image: for the last test of a chosen method

For colour images there are three such groups, with the corruptions of
`corruptions.py`: color_training, color_adaptation and color_heldout; and
color_phase2, which joins the first two.

Values are not clipped: noise, stripes and polarity may leave [0, 1], and
networks get these values as input.
"""

import jax
import jax.numpy as jnp
import numpy as np

from hyperudl import core
from hyperudl.data.episodes import corruptions
from hyperudl.ops import image


def _tuples(groups):
  return {group: tuple(names.split()) for group, names in groups.items()}


FAMILIES = _tuples(
  {
    'training': 'clean contrast polarity noise blur zoom',
    'adaptation': (
      'clean strong_noise stretch stripes rotation polarity_noise'
    ),
    'heldout': 'shear pixelate salt_and_pepper',
    'fresh': 'occlusion',
  }
)
COLOR_FAMILIES = _tuples(
  {
    'color_training': 'clean contrast noise blur brightness saturation',
    'color_adaptation': 'clean strong_noise rotation shot_noise defocus tint',
    'color_heldout': 'fog motion_blur impulse_noise zoom_blur',
  }
)
# Both groups, with `clean` twice.
_PHASE2 = FAMILIES['training'] + FAMILIES['adaptation']
_GROUPS = {
  'none': ('clean',),
  **FAMILIES,
  **COLOR_FAMILIES,
  'color_phase2': (
    COLOR_FAMILIES['color_training'] + COLOR_FAMILIES['color_adaptation']
  ),
  'training+adaptation': tuple(dict.fromkeys(_PHASE2)),
  # The two groups have equal size, so this draws each group with probability
  # 1/2 and then a family; `clean` comes twice as often as the others.
  'phase2': _PHASE2,
  # For a last test of methods developed with `shear`.
  'final': ('pixelate', 'salt_and_pepper', 'occlusion'),
  # For networks that are used, not compared.
  'all': tuple(dict.fromkeys(sum(FAMILIES.values(), ()))),
}


def families(group: str) -> tuple[str, ...]:
  """Return the families that `group` draws from with equal probability.

  Args:
    group: 'none', a key of `FAMILIES` or `COLOR_FAMILIES`,
      'training+adaptation' (its 11 families equally often), 'phase2' or
      'color_phase2' (first the group, then the family), 'final' (held-out and
      fresh families without `shear`), 'all' (every family of `FAMILIES`) or the
      name of one family.

  Returns:
    A tuple of names; one that is listed twice is drawn twice as often.

  Raises:
    core.BadInput: an unknown name.
  """
  if group in _GROUPS:
    return _GROUPS[group]
  if group in _NAMES:
    return (group,)
  raise core.BadInput(
    f'unknown shift {group!r}: choose one of {", ".join(_GROUPS)} or one '
    f'family of {", ".join(_NAMES)}'
  )


def family_name(index: int) -> str:
  """Return the name of the family number `index`, which `apply` returns."""
  return _NAMES[int(index)]


def family_index(name: str) -> int:
  """Return the number of the family `name`; inverts `family_name`."""
  return _NAMES.index(name)


def apply(
  key: jax.Array, images: jax.Array, group: str
) -> tuple[jax.Array, jax.Array]:
  """Apply one random shift of a group to all images.

  With one key, a family gets the same strength and noise from any group.
  Under `lax.map` only the drawn family is computed, under `vmap` all of them.

  Args:
    key: key[].
    images: f32[n, H, W, C] in [0, 1].
    group: a name that `families` knows; static.

  Returns:
    (f32[n, H, W, C], not clipped; i32[], number of the family).

  Raises:
    core.BadInput: an unknown group.
  """
  names = families(group)
  choice_key, shift_key = jax.random.split(key)
  if len(names) == 1:
    shifted = _SHIFTS[names[0]](shift_key, images)
    return shifted, jnp.int32(family_index(names[0]))
  choice = (jax.random.bits(choice_key) % len(names)).astype(jnp.int32)
  branches = [_SHIFTS[name] for name in names]
  shifted = jax.lax.switch(choice, branches, shift_key, images)
  numbers = jnp.array([family_index(name) for name in names], jnp.int32)
  return shifted, numbers[choice]


def _uniform(key, low, high):
  return jax.random.uniform(key, (), minval=low, maxval=high)


def _signed(key, low, high):
  """Draw a number whose absolute value is U(low, high), with a random sign."""
  draw = _uniform(key, -1.0, 1.0)
  return jnp.where(draw < 0, -1, 1) * (low + (high - low) * jnp.abs(draw))


def _contrast(key, images):
  strength_key, level_key = jax.random.split(key)
  strength = _uniform(strength_key, 0.3, 0.9)
  return images * (1 - strength) + strength * _uniform(level_key, 0.0, 1.0)


def _add_noise(key, images, low, high):
  strength_key, noise_key = jax.random.split(key)
  strength = _uniform(strength_key, low, high)
  return images + strength * image.normal(noise_key, images.shape)


def _polarity(key, images):
  return 1 - _uniform(key, 0.3, 1.0) * images


def _polarity_noise(key, images):
  polarity_key, noise_key = jax.random.split(key)
  return _add_noise(noise_key, _polarity(polarity_key, images), 0.15, 0.6)


def _zoom(key, images):
  factor = 1 + 0.6 * _uniform(key, 0.3, 1.0)
  return image.scale(images, factor, factor)


def _stretch(key, images):
  log_factor = _signed(key, 0.3, 0.6)
  return image.scale(images, jnp.exp(log_factor), jnp.exp(-log_factor))


def _stripes(key, images):
  keys = jax.random.split(key, 4)
  height, width = images.shape[1:3]
  frequency = _uniform(keys[0], 0.5, 1.5)
  angle, phase = (_uniform(k, 0.0, 2 * np.pi) for k in keys[1:3])
  row, column = jnp.mgrid[:height, :width]
  along = jnp.cos(angle) * column + jnp.sin(angle) * row
  wave = jnp.sin(frequency * along + phase)
  return images + _uniform(keys[3], 0.3, 0.8) * wave[:, :, None]


def _salt_and_pepper(key, images):
  n, height, width, _ = images.shape
  draw = image.uniform(key, (n, height, width, 1))
  return jnp.where(draw < 0.1, 0.0, jnp.where(draw < 0.2, 1.0, images))


def _occlusion(key, images):
  place_key, value_key = jax.random.split(key)
  n, height, width, _ = images.shape
  sides = max(1, 3 * height // 8), max(1, 3 * width // 8)
  free = jnp.array([height - sides[0] + 1, width - sides[1] + 1])
  corners = jax.random.uniform(place_key, (2 * n,)).reshape(n, 2)
  corners = jnp.floor(corners * free)[:, None, None]
  at = jnp.stack(jnp.mgrid[:height, :width], axis=-1)
  inside = ((at >= corners) & (at < corners + jnp.array(sides))).all(axis=-1)
  return jnp.where(inside[..., None], _uniform(value_key, 0.0, 1.0), images)


_SHIFTS = {
  'clean': lambda key, x: x,
  'contrast': _contrast,
  'polarity': _polarity,
  'noise': lambda key, x: _add_noise(key, x, 0.5 * 0.3, 0.5),
  'blur': lambda key, x: image.blur(x),
  'zoom': _zoom,
  'strong_noise': lambda key, x: _add_noise(key, x, 0.5, 1.0),
  'stretch': _stretch,
  'stripes': _stripes,
  'rotation': lambda key, x: image.rotate(x, _signed(key, 0.35, 0.7)),
  'polarity_noise': _polarity_noise,
  'shear': lambda key, x: image.shear(x, _signed(key, 0.5, 0.8)),
  'pixelate': lambda key, x: image.pixelate(x),
  'salt_and_pepper': _salt_and_pepper,
  'occlusion': _occlusion,
  **corruptions.CORRUPTIONS,
}
_NAMES = tuple(_SHIFTS)  # in the order of their numbers
