"""Convolves the images of one episode with the episode's own weights.

`episode_conv` takes the images of ONE episode; `vmap` over episodes would turn
it into a grouped convolution, which XLA runs many times slower on a CPU. It has
three formulations, chosen in plain Python while tracing:

* 'lax': `lax.conv_general_dilated`, for accelerators.
* 'slices': the k * k shifted windows side by side, then one matmul; the fastest
  if you must `vmap` over weights on a CPU.
* 'closed': for stride 1; see `closed_conv`.

All but 'lax' are differentiable in reverse mode only.
"""

from collections.abc import Collection
import functools

import jax
import jax.numpy as jnp

FORMULATIONS = ('auto', 'lax', 'slices', 'closed')
PADDINGS = ('SAME', 'VALID')
# The gradient of a kernel is a sum over parts of the images. A part has at most
# CACHED bytes of copies (to fit into the L2 cache of a core) and at least
# FEWEST positions (a matmul of fewer rows is slow).
CACHED = 800_000
FEWEST = 100
_LAYOUT = ('NHWC', 'HWIO', 'NHWC')

Pads = tuple[tuple[int, int], ...]  # (low, high) for rows and columns


def to_compute_dtype(x: jax.Array) -> jax.Array:
  """Return `x` as bfloat16 if that is the default matmul precision, else `x`.

  `config.matmul_precision` sets it by `jax.default_matmul_precision`.
  """
  precision = jax.config.jax_default_matmul_precision  # type: ignore[attr-defined]
  return x.astype(jnp.bfloat16) if precision == 'bfloat16' else x


def at_least_float32(x: jax.Array) -> jax.Array:
  """Return bfloat16 as float32, and wider types unchanged."""
  return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def check_choice(name: str, value: object, choices: Collection) -> None:
  """Raise a ValueError that lists the choices unless `value` is one."""
  if value not in choices:
    raise ValueError(f'{name} must be one of {tuple(choices)}, not {value!r}')


def check_settings(stride: int, padding: str, formulation: str) -> None:
  """Raise a ValueError unless `episode_conv` accepts these arguments."""
  check_choice('formulation', formulation, FORMULATIONS)
  check_choice('padding', padding, PADDINGS)
  if formulation == 'closed' and stride != 1:
    raise ValueError(
      f"formulation='closed' needs stride 1, not {stride}; use 'slices'"
    )


def _pads(shape, kernel, stride, padding):
  """Return the `Pads` of `padding` for maps (H, W) and a kernel (kh, kw)."""
  if padding == 'VALID' and any(k > size for k, size in zip(kernel, shape)):
    raise ValueError(
      f'a {kernel[0]}x{kernel[1]} kernel does not fit into a map of '
      f"{shape[0]}x{shape[1]}; use padding='SAME', fewer layers or larger "
      'images'
    )
  return tuple(
    jax.lax.padtype_to_pads(shape, kernel, (stride, stride), padding)
  )


def _choose(w, stride):
  """Return the fastest formulation for the backend, as measured."""
  kh, kw, inputs, outputs = w.shape
  if jax.default_backend() != 'cpu':
    return 'lax'
  if stride == 1 and kh * kw > 1 and min(inputs, outputs) >= 8:
    return 'closed'
  return 'slices'


def episode_conv(
  x: jax.Array,
  w: jax.Array,
  *,
  stride: int = 1,
  padding: str = 'SAME',
  formulation: str = 'auto',
) -> jax.Array:
  """Convolve the images of one episode with its own weights.

  Args:
    x: f32[n, H, W, Cin].
    w: f32[kh, kw, Cin, Cout].
    stride: >= 1, for rows and columns.
    padding: 'SAME' or 'VALID', as in `lax.conv_general_dilated`.
    formulation: one of FORMULATIONS; see the module's docstring.

  Returns:
    f32[n, H', W', Cout].

  Raises:
    ValueError: for an unknown choice, 'closed' with a stride, or a kernel
      larger than a 'VALID' map.
  """
  check_settings(stride, padding, formulation)
  if formulation == 'auto':
    formulation = _choose(w, stride)
  pads = _pads(x.shape[1:3], w.shape[:2], stride, padding)
  if formulation == 'closed':
    return closed_conv(pads, x, w)
  if formulation == 'lax':
    return jax.lax.conv_general_dilated(
      x, w, (stride, stride), pads, dimension_numbers=_LAYOUT
    )
  windows = _windows(_pad(x, *pads), w.shape[:2], stride)
  flat = windows.reshape(-1, windows.shape[-1])
  y = product(flat, w.reshape(flat.shape[-1], -1))
  return y.reshape(*windows.shape[:-1], -1)


@jax.custom_vjp
def product(x: jax.Array, w: jax.Array) -> jax.Array:
  """Return x @ w of [M, K] and [K, N], for many rows M.

  On CPUs XLA computes the gradient of w, a sum over rows, up to twice as fast
  with the narrower factor first, but without a barrier restores the order of w.
  """
  return x @ w


def _product_backward(inputs, dy):
  x, w = inputs
  turn = dy.shape[1] <= x.shape[1]
  dw = jax.lax.optimization_barrier(dy.T @ x if turn else x.T @ dy)
  return product(dy, w.T), dw.T if turn else dw


# The forward rule calls `product` again. With a mere x @ w, an outer loop that
# differentiates through an inner gradient would not use the rule above.
product.defvjp(lambda x, w: (product(x, w), (x, w)), _product_backward)


def _pad(x, rows=(0, 0), columns=(0, 0)):
  """Pad images f32[n, H, W, C] with zeros."""
  return jnp.pad(x, ((0, 0), rows, columns, (0, 0)))


def _windows(x, kernel, stride=1):
  """Return the windows of every position side by side.

  Args:
    x: f32[n, H, W, C], padded.
    kernel: (kh, kw).
    stride: stride of rows and columns.

  Returns:
    f32[n, H', W', kh * kw * C].
  """
  kh, kw = kernel
  rows, columns = x.shape[1] - kh + 1, x.shape[2] - kw + 1
  shifted = [
    x[:, i : i + rows : stride, j : j + columns : stride]
    for i in range(kh)
    for j in range(kw)
  ]
  return jnp.concatenate(shifted, axis=-1)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def closed_conv(pads: Pads, x: jax.Array, w: jax.Array) -> jax.Array:
  """Convolve with stride 1; derivatives are convolutions of the same kind.

  XLA has a fast CPU kernel for the layout NHWC x HWIO -> NHWC, and converts
  other layouts to it, but only outside of loops. Inside a `scan` the native
  gradients, which use other layouts, are up to a hundred times slower. The
  derivatives of this function and of `kernel_gradient` use only these two
  functions, so derivatives of every order stay in the fast layout. Reverse mode
  only.

  Args:
    pads: static ((low, high), (low, high)) for rows and columns.
    x: f32[n, H, W, Cin].
    w: f32[kh, kw, Cin, Cout].

  Returns:
    f32[n, H', W', Cout].
  """
  return jax.lax.conv_general_dilated(
    x, w, (1, 1), pads, dimension_numbers=_LAYOUT
  )


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def kernel_gradient(
  pads: Pads, kernel: tuple[int, int], x: jax.Array, dy: jax.Array
) -> jax.Array:
  """Return the gradient of <dy, closed_conv(pads, x, w)> with respect to w.

  One matmul multiplies the kw column shifts of x with the kh row shifts of dy,
  which takes kw + kh copies of maps instead of kh * kw.

  Args:
    pads: pads of the convolution; static.
    kernel: (kh, kw); static.
    x: f32[n, H, W, Cin].
    dy: f32[n, H', W', Cout].

  Returns:
    f32[kh, kw, Cin, Cout].
  """
  parts = gradient_parts(x, dy, kernel)
  if parts == 1:
    return _kernel_gradient(pads, kernel, x, dy)

  def add(total, part):
    return total + at_least_float32(_kernel_gradient(pads, kernel, *part)), None

  split = lambda maps: maps.reshape(parts, -1, *maps.shape[1:])
  zeros = jnp.zeros((*kernel, x.shape[-1], dy.shape[-1]), x.dtype)
  total, _ = jax.lax.scan(add, at_least_float32(zeros), (split(x), split(dy)))
  return total.astype(x.dtype)


def gradient_parts(x: jax.Array, dy: jax.Array, kernel: tuple[int, int]) -> int:
  """Return the number of parts of the images in `kernel_gradient`.

  Args:
    x: f32[n, H, W, Cin].
    dy: f32[n, H', W', Cout].
    kernel: (kh, kw).
  """
  images = x.shape[0]
  if images < 2 or jax.default_backend() != 'cpu':
    return 1
  largest = max(kernel[1] * x.size, kernel[0] * dy.size) // images
  fits = max(CACHED // (largest * x.dtype.itemsize), 1)
  parts = next(
    p for p in range(1, images + 1) if images % p == 0 and images // p <= fits
  )
  # Some image counts, such as primes, only divide into too small parts.
  rows = images // parts * dy.shape[1] * dy.shape[2]
  return parts if rows >= FEWEST else 1


def _kernel_gradient(pads, kernel, x, dy):
  kh, kw = kernel
  rows, columns = x.shape[1], dy.shape[2]
  x = _pad(x, columns=pads[1])
  dy = _pad(dy, rows=_opposite(pads, kernel)[0])
  right = [x[:, :, j : j + columns] for j in range(kw)]
  left = [dy[:, i : i + rows] for i in reversed(range(kh))]
  right = jnp.concatenate(right, axis=-1).reshape(-1, kw * x.shape[-1])
  left = jnp.concatenate(left, axis=-1).reshape(-1, kh * dy.shape[-1])
  products = (left.T @ right).reshape(kh, dy.shape[-1], kw, x.shape[-1])
  return products.transpose(0, 2, 3, 1)


def _opposite(pads, kernel):
  """Return the pads of the convolution that computes the gradient of x."""
  return tuple((k - 1 - a, k - 1 - b) for (a, b), k in zip(pads, kernel))


def _transpose(w):
  return jnp.swapaxes(w[::-1, ::-1], 2, 3)


def _conv_forward(pads, x, w):
  return closed_conv(pads, x, w), (x, w)


def _conv_backward(pads, inputs, dy):
  x, w = inputs
  kernel = w.shape[:2]
  dx = closed_conv(_opposite(pads, kernel), dy, _transpose(w))
  return dx, kernel_gradient(pads, kernel, x, dy)


def _kernel_forward(pads, kernel, x, dy):
  return kernel_gradient(pads, kernel, x, dy), (x, dy)


def _kernel_backward(pads, kernel, inputs, dw):
  x, dy = inputs
  dx = closed_conv(_opposite(pads, kernel), dy, _transpose(dw))
  return dx, closed_conv(pads, x, dw)


closed_conv.defvjp(_conv_forward, _conv_backward)
kernel_gradient.defvjp(_kernel_forward, _kernel_backward)
