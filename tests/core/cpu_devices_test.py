"""How many devices --cpu_devices makes of a CPU."""

import os

import pytest

from hyperudl import core
from hyperudl.core import cpu_devices


@pytest.mark.parametrize(
  'requested, batch, cores, expected',
  [
    (1, 8, 16, 1),
    (3, 8, 2, 3),  # a number is taken as it is
    (0, 8, 2, 2),
    (0, 8, 6, 4),  # the largest divisor of the batch
    (0, 7, 6, 1),
    (0, 4, 16, 4),
    (0, 1, 6, 1),
    (None, 8, 6, None),  # what XLA_FLAGS say
  ],
)
def test_there_is_a_device_for_each_core_that_divides_the_batch(
  requested, batch, cores, expected, monkeypatch
):
  monkeypatch.setattr(cpu_devices, 'available_cores', lambda: cores)
  assert cpu_devices.count(requested, batch, {}) == expected


@pytest.mark.parametrize(
  'environ, expected',
  [
    ({'JAX_NUM_PROCESSES': '2'}, 1),
    ({'SLURM_STEP_NUM_TASKS': '8'}, 1),
    ({'JAX_NUM_PROCESSES': '', 'SLURM_STEP_NUM_TASKS': '1'}, 4),
  ],
)
def test_each_of_several_processes_has_one_device(
  environ, expected, monkeypatch
):
  monkeypatch.setattr(cpu_devices, 'available_cores', lambda: 4)
  assert cpu_devices.count(0, 8, environ) == expected
  assert cpu_devices.count(2, 8, environ) == 2


@pytest.mark.parametrize(
  'text, expected',
  [
    ('max 100000', 8),
    ('250000 100000', 2),
    ('50000 100000', 1),
    ('9900000 100000', 8),
    ('', 8),
  ],
)
def test_a_container_has_the_cores_of_its_quota(
  text, expected, monkeypatch, tmp_path
):
  monkeypatch.setattr(
    os, 'sched_getaffinity', lambda pid: range(8), raising=False
  )
  quota = tmp_path / 'cpu.max'
  quota.write_text(text)
  assert cpu_devices.available_cores(quota) == expected
  assert cpu_devices.available_cores(tmp_path / 'none') == 8


def test_a_negative_number_of_devices_is_refused():
  with pytest.raises(core.BadInput, match='--cpu_devices=-1'):
    cpu_devices.count(-1, 8)
