"""Operations by hand, by XLA and by the formula of the benchmark."""

import jax
import jax.numpy as jnp
import pytest

from hyperudl.benchmark import flops
from hyperudl.benchmark import workloads
from hyperudl.training import episode_batching

A, B = jnp.ones((3, 5)), jnp.ones((5, 7))
IMAGES = jnp.ones((2, 8, 8, 6))
BATCHED = jnp.ones((11, 3, 5)), jnp.ones((11, 5, 7))


def convolve(x, w):
  return jax.lax.conv_general_dilated(
    x, w, (1, 1), 'SAME', (1, 1), (1, 1), ('NHWC', 'HWIO', 'NHWC'), 3
  )


def repeated(a):
  return jax.lax.scan(lambda c, _: (c @ c, None), a, None, 6)[0]


@pytest.mark.parametrize(
  'function,args,number',
  [
    (jnp.matmul, (A, B), 2 * 3 * 5 * 7),
    (jnp.matmul, BATCHED, 11 * 2 * 3 * 5 * 7),
    (jax.jit(lambda a, b: jnp.tanh(a @ b)), (A, B), 210),
    # The product itself is not needed for the gradient of its sum.
    (jax.grad(lambda a, b: jnp.sum(a @ b)), (A, B), 210),
    (jax.value_and_grad(lambda a, b: jnp.sum(a @ b)), (A, B), 420),
    (jax.vmap(jnp.matmul, (None, 2)), (A, jnp.ones((5, 7, 4))), 840),
    (repeated, (jnp.ones((4, 4)),), 6 * 128),
    (jax.checkpoint(lambda a, b: a @ b), (A, B), 210),
    (
      lambda a, b: jax.lax.cond(a[0, 0] > 0, lambda: a @ b, lambda: A @ B + 1),
      (A, B),
      210,
    ),
    # 4 outputs of 3 groups of 2 channels each.
    (convolve, (IMAGES, jnp.ones((3, 3, 2, 12))), 2 * 2 * 64 * 12 * 9 * 2),
    (lambda a: a + 1, (A,), 0),
  ],
)
def test_operations_by_hand(function, args, number):
  assert flops.count(function, *args) == number


def test_a_program_over_devices_counts_all_of_them():
  mesh = jax.sharding.AbstractMesh((2,), ('episodes',))
  P = jax.sharding.PartitionSpec
  rows = P('episodes')
  split = jax.shard_map(
    jnp.matmul, mesh=mesh, in_specs=(rows, P()), out_specs=rows
  )
  assert flops.count(split, jnp.ones((4, 5)), B) == 2 * 4 * 5 * 7


def test_what_nothing_depends_on_does_not_count():
  both = jax.jit(lambda a, b: {'used': a @ b, 'other': b.T @ b})
  assert flops.count(lambda a, b: both(a, b)['used'], A, B) == 210


@pytest.mark.parametrize('method', ['maml', 'protonet'])
def test_a_meta_gradient_takes_what_the_formula_says(method):
  row = workloads.Row(
    'row',
    *(32, 2, 'scan', 'slices' if method == 'maml' else 'auto'),
    method=method,
    steps=3,
  )
  run = episode_batching.episode_value_and_grad(
    workloads.make_loss(row)[1], 'scan'
  )
  found = flops.count(run, *workloads.make_inputs(row))
  ratio = found / (row.batch * workloads.count_flops(row))
  assert 0.9 < ratio < 1.35, ratio


def test_xla_counts_the_same_where_there_is_no_loop():
  def function(a, b):
    return jnp.sum(jnp.tanh(a @ b) @ b.T)

  a, b = jnp.ones((64, 128)), jnp.ones((128, 256))
  run = jax.jit(jax.value_and_grad(function, (0, 1)))
  ours = flops.count(run, a, b)
  theirs = run.lower(a, b).compile().cost_analysis()['flops']
  assert ours == pytest.approx(theirs, rel=0.02)
