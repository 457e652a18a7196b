"""TIM, PT-MAP and soft k-means agree with their formulas in plain NumPy."""

import functools

import jax
import numpy as np

from hyperudl.learners import baseline
from hyperudl.learners.baseline import unlabelled
from hyperudl.ops import losses

WAY, SHOT, EACH, SIZE = 3, 2, 5, 6


def unit(x):
  return x / np.linalg.norm(x, axis=-1, keepdims=True)


def softmax(x):
  p = np.exp(x - x.max(axis=1, keepdims=True))
  return p / p.sum(axis=1, keepdims=True)


def distances(z, c):
  return ((z[:, None] - c) ** 2).sum(axis=2)


@functools.cache
def points():
  """(z f32[S, D], one_hot f32[S, N], rows f32[S], class means f32[N, D])"""
  rng = np.random.default_rng(3)
  y = np.concatenate([np.repeat(np.arange(WAY), SHOT), [-1] * (WAY * EACH)])
  of = np.concatenate([y[: WAY * SHOT], np.tile(np.arange(WAY), EACH)])
  z = rng.normal(size=(WAY, SIZE))[of] + 1.5 * rng.normal(size=(len(y), SIZE))
  z = unit(z).astype(np.float32)
  means = np.asarray(losses.class_means(z, y, WAY))
  return z, np.float32(y[:, None] == np.arange(WAY)), np.float32(y < 0), means


def tim_loss(means, z, one_hot, rows, tau=4):
  p = softmax(-tau / 2 * distances(z, means))
  ce = -np.log(p[rows == 0][one_hot[rows == 0] == 1]).mean()
  u = p[rows == 1]
  marginal = -(u.mean(axis=0) * np.log(u.mean(axis=0))).sum()
  return 0.1 * ce - marginal - 0.1 * (u * np.log(u)).sum(axis=1).mean()


def test_tim_is_adam_on_the_loss_of_the_paper_by_finite_differences():
  z, one_hot, rows, means = points()
  settings = {'tim_steps': 4, 'tim_rate': 0.02, 'tim_scale': 2.0}
  config = baseline.Config(WAY, kind='tim', **settings)
  tim = jax.jit(unlabelled.tim, static_argnums=0)
  weights, bias = tim(config, means, z, one_hot, rows)
  c = means.astype(np.float64)
  m, v = np.zeros_like(c), np.zeros_like(c)
  start = tim_loss(c, z, one_hot, rows)
  for t in range(1, 5):
    g = np.zeros_like(c)
    for i in np.ndindex(c.shape):
      e = np.zeros_like(c)
      e[i] = 1e-5
      above, below = (tim_loss(c + s * e, z, one_hot, rows) for s in (1, -1))
      g[i] = (above - below) / 2e-5
    m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
    c -= 0.02 * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
  assert tim_loss(c, z, one_hot, rows) < start - 0.01
  np.testing.assert_allclose(
    softmax(z @ np.asarray(weights) + np.asarray(bias)),
    softmax(-2 * distances(z, c)),
    atol=1e-3,
  )


def transport(z, c, lam=10):
  """The plan of the paper's Sinkhorn loop, until nothing changes."""
  p = np.exp(-lam * distances(z, c))
  for _ in range(5_000):
    p *= (len(z) / WAY) / p.sum(axis=0)
    p /= p.sum(axis=1, keepdims=True)
  return p


def test_pt_map_is_the_algorithm_of_the_paper():
  z, one_hot, rows, _ = points()
  config = baseline.Config(WAY, kind='pt_map', map_steps=20)
  centred, offset = jax.jit(unlabelled.centre)(z, rows)
  is_labelled = rows == 0
  z_s, z_u = z[is_labelled].astype(float), z[~is_labelled].astype(float)
  np.testing.assert_allclose(offset, z_u.mean(axis=0), rtol=1e-4, atol=1e-6)
  s, u = (unit(part - part.mean(axis=0)) for part in (z_s, z_u))
  np.testing.assert_allclose(centred, np.concatenate([s, u]), atol=1e-5)

  pt_map = jax.jit(unlabelled.pt_map, static_argnums=0)
  weights, bias = pt_map(config, centred, one_hot, rows)
  y = one_hot[is_labelled]
  c = y.T @ s / SHOT
  for _ in range(20):
    p = transport(u, c)
    new = (y.T @ s + p.T @ u) / (SHOT + p.sum(axis=0))[:, None]
    c += 0.2 * (new - c)
  ours = softmax(np.asarray(centred)[~is_labelled] @ weights + bias)
  np.testing.assert_allclose(ours, transport(u, c), atol=2e-3)
  np.testing.assert_allclose(ours.sum(axis=0), EACH, rtol=1e-2)


def test_soft_k_means_by_loops():
  z, one_hot, rows, means = points()
  config = baseline.Config(WAY, kind='soft_k_means', iterations=3, scale=4.0)
  weights, bias = unlabelled.soft_k_means(config, means, z, one_hot, rows)
  c, u = means.astype(float), z[rows == 1].astype(float)
  for _ in range(3):
    r = softmax(-4 * distances(u, c))
    c = (SHOT * means + r.T @ u) / (SHOT + r.sum(axis=0))[:, None]
  np.testing.assert_allclose(
    softmax(z @ np.asarray(weights) + np.asarray(bias)),
    softmax(-4 * distances(z, c)),
    atol=1e-4,
  )
