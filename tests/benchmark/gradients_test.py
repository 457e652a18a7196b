"""The benchmark runs, counts right and prints JSON."""

import dataclasses
import json
import os
import statistics
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import compare
from hyperudl import core
from hyperudl.benchmark import gradients as benchmark
from hyperudl.benchmark import workloads
from hyperudl.training import episode_batching

TINY = workloads.Row('tiny', 2, 2, way=2, shot=1, query=1, size=16, steps=1)


def test_each_row_is_one_json_line_of_positive_numbers():
  rows = [
    TINY,
    dataclasses.replace(TINY, name='two', devices=99, strategy='sharded'),
    dataclasses.replace(
      TINY, name='naive', strategy='vmap', formulation='naive'
    ),
  ]
  lines = benchmark.measure(rows, repeats=2, matmul=64)
  lines = [json.loads(json.dumps(line)) for line in lines]
  # Nobody has 99 devices.
  assert [line['name'] for line in lines] == ['tiny', 'naive']
  for line in lines:
    numbers = [v for v in line.values() if not isinstance(v, str)]
    assert len(line) == 11 and min(numbers) >= 0
    assert line['episodes_per_second'] > 0
    assert line['ms_per_episode'] == pytest.approx(
      1000 / line['episodes_per_second'], rel=0.01
    )
  assert lines[1]['strategy'] == 'vmap'


def test_sharded_rows_run_on_the_devices_that_exist():
  row = dataclasses.replace(TINY, strategy='sharded', first_order=True)
  assert benchmark.measure([row], 1, matmul=64)[0]['devices'] == 1


@pytest.mark.parametrize('first_order', [False, True])
def test_flops_are_those_of_the_compiled_program(first_order):
  # XLA counts the body of a loop once: so one episode and one inner step.
  row = dataclasses.replace(
    TINY,
    channels=32,
    size=32,
    batch=1,
    formulation='slices',
    first_order=first_order,
  )
  value_and_grad = episode_batching.episode_value_and_grad(
    workloads.make_loss(row)[1], 'vmap'
  )
  inputs = workloads.make_inputs(row)
  compiled = jax.jit(value_and_grad).lower(*inputs).compile()
  # XLA also counts elementwise operations and what is computed again.
  ratio = compiled.cost_analysis()['flops'] / workloads.count_flops(row)
  assert 1 < ratio < 1.2


def test_a_second_order_episode_of_conv4_64_takes_8_65_gigaflop():
  rows = {row.name: row for row in workloads.make_rows()}
  count = lambda name: workloads.count_flops(rows[f'maml {name}'])
  assert count('conv4-64 second-order') == pytest.approx(8.65e9, rel=0.01)
  assert count('conv4-8 second-order') == pytest.approx(0.16e9, rel=0.05)
  assert count('conv4-64 first-order') < count('conv4-64 second-order')


def test_first_order_drops_a_part_of_the_gradient():
  inputs = workloads.make_inputs(TINY)
  gradients = [
    jax.jit(
      episode_batching.episode_value_and_grad(
        workloads.make_loss(row)[1], 'scan'
      )
    )(*inputs)
    for row in (TINY, dataclasses.replace(TINY, first_order=True))
  ]
  (value, _, second), (other, _, first) = gradients
  np.testing.assert_allclose(value, other, rtol=1e-6)
  difference = jax.tree.map(lambda a, b: jnp.abs(a - b).max(), second, first)
  assert max(jax.tree.leaves(difference)) > 0


def test_a_filter_that_fits_nothing_lists_the_rows():
  rows = workloads.make_rows()
  assert len(benchmark.select(rows, 'naive')) == 2
  assert benchmark.select(rows, '') == rows
  with pytest.raises(core.BadInput, match='conv4-64 second-order naive'):
    benchmark.select(rows, 'resnet')


@pytest.mark.parametrize(
  'arguments,code,text',
  [
    (['--help'], 0, 'medians are printed'),
    (['--filter=resnet'], 2, 'fits no row'),
    (['--repeats=0'], 2, '--repeats must be >= 1'),
  ],
)
def test_the_command_line_explains_itself(arguments, code, text):
  done = subprocess.run(
    [sys.executable, '-m', 'hyperudl.benchmark', *arguments],
    capture_output=True,
    text=True,
    env={**os.environ, 'JAX_PLATFORMS': 'cpu'},
  )
  assert done.returncode == code
  assert text in done.stdout + done.stderr
  assert 'Traceback' not in done.stderr


def test_ratios_are_to_the_best_torch_program_of_the_row():
  measured = {
    ('a', 'hyperudl'): (4, [1.0, 2.0, 4.0]),
    ('a', 'torch loop'): (4, [2.0, 6.0, 4.0]),
    ('a', 'torch vmap'): (4, [9.0, 9.0, 9.0]),
    ('b', 'hyperudl'): (2, [1.0, 1.0, 1.0]),
  }
  lines = compare.describe(measured)
  assert [line['to_best_torch'] for line in lines] == [2.0, 1.0, 0.444, None]
  assert lines[0]['episodes_per_second'] == 4 / statistics.median([1, 2, 4])
