"""Suites of workloads: their rows, and gradients of first order."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hyperudl import core
from hyperudl.benchmark import timing
from hyperudl.benchmark import workloads

TINY = workloads.Workload(
  'tiny', 2, 2, way=2, shot=1, query=1, size=16, steps=1
)


def measure(*suite, repeats=1):
  """Lines of workloads; two calls a row, as no claim is made of the speed."""
  return timing.measure(workloads.rows(suite), repeats, 64, seconds=0.0)


@pytest.mark.slow
def test_each_row_is_one_json_line_of_positive_numbers():
  lines = measure(
    TINY,
    dataclasses.replace(TINY, name='two', devices=99, strategy='sharded'),
    dataclasses.replace(
      TINY, name='naive', strategy='vmap', formulation='naive'
    ),
    repeats=2,
  )
  # Nobody has 99 devices.
  assert [line['name'] for line in lines] == ['tiny', 'naive']
  for line in lines:
    assert json.loads(json.dumps(line)) == line
    numbers = [v for v in line.values() if not isinstance(v, str | None)]
    assert min(numbers) >= 0
    assert line['episodes_per_second'] > 0 and line['share'] is None
    assert line['peak_mb'] >= line['temporary_mb']
    assert line['ms_per_episode'] == pytest.approx(
      1000 / line['episodes_per_second'], rel=0.01
    )
  assert lines[1]['strategy'] == 'vmap'


def test_sharded_rows_run_on_the_devices_that_exist():
  workload = dataclasses.replace(TINY, strategy='sharded', first_order=True)
  assert measure(workload)[0]['devices'] == 1


@pytest.mark.slow
def test_first_order_drops_a_part_of_the_gradient():
  results = []
  for workload in (TINY, dataclasses.replace(TINY, first_order=True)):
    gradient, inputs = workloads.make_gradient(workload)
    results.append(gradient(*inputs))
  (value, _, second), (other, _, first) = results
  np.testing.assert_allclose(value, other, rtol=1e-6)
  difference = jax.tree.map(lambda a, b: jnp.abs(a - b).max(), second, first)
  assert max(jax.tree.leaves(difference)) > 0


def test_a_filter_that_fits_nothing_lists_the_rows():
  assert len(workloads.select('maml', 'naive')) == 2
  assert workloads.select('maml', '') == workloads.suite('maml')
  with pytest.raises(core.BadInput, match='conv4-64 second-order naive'):
    workloads.select('maml', 'resnet')
