"""Operations by hand, by XLA and by a formula."""

import jax
import jax.numpy as jnp
import pytest

from hyperudl.benchmark import flops
from hyperudl.benchmark import workloads

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


def by_formula(workload):
  """Operations of one episode's meta-gradient of MAML.

  A convolution costs as much in each of its gradients. Per image and
  convolution, in units of one pass, and in brackets for the first one,
  whose input has no gradient:

  * queries: forward, gradient of the input, of the kernel: 3 (2);
  * support, each step, forward and gradients: 3 (2);
  * second order: each of the latter has two derivatives: 6 more (2 more).

  Methods that adapt the head alone, or generate it, count the support once;
  what `jax.checkpoint` computes twice counts once.
  """
  support = workload.way * workload.shot
  queries = workload.way * workload.query
  inner_rest, inner_first = (3, 2) if workload.first_order else (9, 4)
  if workload.method == 'maml':
    support *= workload.steps
  else:
    inner_rest, inner_first = 3, 2
  total, inputs, size = 0, 1, workload.size
  for index in range(4):
    once = 2 * size * size * 9 * inputs * workload.channels
    if index == 0:
      total += once * (2 * queries + inner_first * support)
    else:
      total += once * (3 * queries + inner_rest * support)
    inputs, size = workload.channels, size // 2
  head = 2 * size * size * workload.channels * workload.way
  return total + head * (3 * queries + inner_rest * support)


@pytest.mark.parametrize('method', ['maml', 'protonet'])
def test_a_meta_gradient_takes_the_operations_of_the_formula(method):
  formulation = 'slices' if method == 'maml' else 'auto'
  workload = workloads.Workload(
    'row', 32, 2, 'scan', formulation, method=method, steps=3
  )
  gradient, inputs = workloads.make_gradient(workload)
  ratio = flops.count(gradient, *inputs) / (2 * by_formula(workload))
  assert 0.9 < ratio < 1.35, ratio


@pytest.mark.parametrize('first_order', [False, True])
def test_the_formula_is_that_of_the_compiled_program(first_order):
  # XLA counts the body of a loop once: so one episode and one inner step.
  workload = workloads.Workload(
    'row',
    *(32, 1, 'vmap', 'slices', first_order),
    **{'way': 2, 'query': 1, 'size': 32, 'steps': 1},
  )
  gradient, inputs = workloads.make_gradient(workload)
  # With the passes that other tests leave out (`conftest.py`).
  every_pass = {'xla_disable_hlo_passes': ''}
  compiled = gradient.lower(*inputs).compile(compiler_options=every_pass)
  # XLA also counts elementwise operations and what is computed again.
  ratio = compiled.cost_analysis()['flops'] / by_formula(workload)
  assert 1 < ratio < 1.2


def test_a_second_order_episode_of_conv4_64_takes_8_65_gigaflop():
  suite = {workload.name: workload for workload in workloads.suite()}
  count = lambda name: by_formula(suite[f'maml {name}'])
  assert count('conv4-64 second-order') == pytest.approx(8.65e9, rel=0.01)
  assert count('conv4-8 second-order') == pytest.approx(0.16e9, rel=0.05)
  assert count('conv4-64 first-order') < count('conv4-64 second-order')


def test_xla_counts_the_same_where_there_is_no_loop():
  def function(a, b):
    return jnp.sum(jnp.tanh(a @ b) @ b.T)

  a, b = jnp.ones((64, 128)), jnp.ones((128, 256))
  run = jax.jit(jax.value_and_grad(function, (0, 1)))
  ours = flops.count(run, a, b)
  xla = run.lower(a, b).compile().cost_analysis()['flops']
  assert ours == pytest.approx(xla, rel=0.02)
