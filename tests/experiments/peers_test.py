"""The torch programs of `experiments/peers` compute what our learners do."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hyperudl import learners
from hyperudl.benchmark import workloads
from tests.testing import episodes

WAY, RATE = 5, 0.125  # a rate that float32 holds exactly

torch = pytest.importorskip(
  'torch', reason='needs the extra bench: pip install -e .[bench]'
)
torch_programs = pytest.importorskip('experiments.peers.torch_programs')


def make(name, **settings):
  return learners.make(name, WAY, {'channels': (8,) * 4, **settings})


def both(learner, params_of, loss_of, dtype):
  """(loss, gradients) of ours and of torch, the latter in our layouts."""
  with jax.enable_x64(dtype == 'float64'):
    episode = episodes.episode_of(WAY, query=3, size=28)
    params = jax.jit(learner.init)(jax.random.key(1), episode)
    params = jax.tree.map(lambda leaf: leaf.astype(dtype), params)
    run = jax.value_and_grad(
      lambda p: learner.loss(p, episode, jax.random.key(0), jnp.int32(10))[0]
    )
    by_jax = jax.tree.map(np.asarray, jax.jit(run)(params))
    weights = torch_programs.from_jax(
      jax.tree.map(np.asarray, params_of(params)), getattr(torch, dtype)
    )
    leaves = [leaf for layer in weights.values() for leaf in layer.values()]
    for leaf in leaves:
      leaf.requires_grad_(True)
    tasks = [
      (
        torch.tensor(np.asarray(part.x).transpose(0, 3, 1, 2).copy()),
        torch.tensor(np.asarray(part.y), dtype=torch.int64),
      )
      for part in (episode.support, episode.query)
    ]
    value, _ = torch_programs.by_loop(loss_of, weights, [tasks])
    by_torch = {
      layer: {
        name: leaf.grad.numpy().transpose(*([2, 3, 1, 0][: leaf.ndim]))
        if leaf.ndim == 4
        else leaf.grad.numpy().T
        for name, leaf in leaves.items()
      }
      for layer, leaves in weights.items()
    }
    return by_jax, (value, by_torch)


def assert_same(by_jax, by_torch, limit):
  """Losses, and gradients leaf by leaf in relation to their norm."""
  (value, grads), (other, expected) = by_jax, by_torch
  assert abs(float(value) - other) <= limit * abs(other)
  assert grads.keys() == expected.keys()
  for layer in grads:
    for name, gradient in grads[layer].items():
      gap = np.linalg.norm(gradient - expected[layer][name])
      assert gap <= limit * np.linalg.norm(gradient) + 1e-12, (layer, name)


@pytest.mark.parametrize('first_order', [False, True])
def test_the_meta_gradient_is_that_of_torch_to_1e_8(first_order):
  learner = make('maml', inner_rate=RATE, first_order=first_order)
  loss = lambda w, s, q: torch_programs.maml_loss(
    w, s, q, 5, first_order, RATE, pool_first=True
  )
  by_jax, by_torch = both(learner, lambda p: p['net'], loss, 'float64')
  assert_same((by_jax[0], by_jax[1]['net']), by_torch, 1e-8)


def test_prototypes_are_those_of_torch():
  learner = make('protonet')
  loss = lambda w, s, q: torch_programs.protonet_loss(w, s, q, WAY)
  by_jax, by_torch = both(learner, lambda p: p['net'], loss, 'float64')
  assert_same((by_jax[0], by_jax[1]['net']), by_torch, 1e-7)


def test_hypermaml_is_that_of_torch():
  learner = make('hypermaml')

  def params_of(params):
    layers = params['hypernetwork']
    flat = {}
    for index in range(3):
      flat[f'kernel{index}'] = layers[f'Dense_{index}']['kernel']
      flat[f'bias{index}'] = layers[f'Dense_{index}']['bias']
    return {**params['trunk'], 'head': params['head'], 'hypernetwork': flat}

  by_jax, by_torch = both(
    learner, params_of, torch_programs.hypermaml_loss, 'float64'
  )
  assert_same((by_jax[0], params_of(by_jax[1])), by_torch, 1e-7)


def test_torch_formulations_agree_with_each_other():
  row = workloads.Workload('tiny', 4, 2, way=3, query=2, size=16, steps=2)
  torch.set_default_dtype(torch.float64)
  try:
    results = [run() for run in torch_programs.programs(row).values()]
  finally:
    torch.set_default_dtype(torch.float32)
  assert len(results) == 3
  for value, grads in results[1:]:
    np.testing.assert_allclose(value, results[0][0], rtol=1e-12)
    for a, b in zip(grads, results[0][1]):
      # torch's batch norm under vmap is not exact in the second order.
      np.testing.assert_allclose(a, b, atol=1e-3)


def test_anil_is_that_of_torch():
  learner = make('maml', scope='head', inner_rate=RATE)
  loss = lambda w, s, q: torch_programs.anil_loss(w, s, q, 5, RATE)
  by_jax, by_torch = both(learner, lambda p: p['net'], loss, 'float64')
  assert_same((by_jax[0], by_jax[1]['net']), by_torch, 1e-7)


@pytest.mark.parametrize('suite', ['gradient', 'metric'])
def test_every_row_has_a_torch_program_of_as_many_parameters(suite):
  generator = torch.Generator().manual_seed(0)
  for row in workloads.suite(suite):
    if row.devices > 1:
      continue
    if 'warmup' in row.name:  # has no torch program
      assert not torch_programs.programs(row)
      continue
    weights = torch_programs.make_weights(row, generator)
    by_torch = sum(
      leaf.numel() for layer in weights.values() for leaf in layer.values()
    )
    params = jax.eval_shape(lambda row=row: workloads.make_inputs(row)[0])
    params = {k: v for k, v in params.items() if k != 'log_scale'}
    by_jax = sum(leaf.size for leaf in jax.tree.leaves(params))
    assert by_jax == by_torch, row.name
    assert 'loop' in torch_programs.programs(row)
