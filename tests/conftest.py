"""Tests run on the CPU, with compiled programs kept between runs."""

import gc
import os
import pathlib

os.environ['JAX_PLATFORMS'] = 'cpu'
# Tests compile far more than they compute: without optimisations they take half
# the time, without fusion emitters half of that, and a third less without these
# passes. Processes of tests inherit it.
os.environ.setdefault(
  'XLA_FLAGS',
  '--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false '
  '--xla_disable_hlo_passes=simplify-while-loops,simplify-conditional,'
  'while-loop-invariant-code-motion,while-loop-constant-sinking,'
  'reshape-mover,constant_folding,sort-simplifier,tuple-simplifier',
)

from absl import logging
import jax
import pytest

jax.config.update(
  'jax_compilation_cache_dir',
  os.environ.get('JAX_COMPILATION_CACHE_DIR', '.jax_cache'),
)
jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.5)

# Tracing allocates many objects; to search them for cycles more rarely saves
# some 5% of the time of tests/learners/maml_test.py.
gc.freeze()
gc.set_threshold(100_000, 20, 20)

MAPS = pathlib.Path('/proc/self/maps')
MOST_MAPS = 30_000  # Linux gives a process 65,530 by default


@pytest.fixture(autouse=True, scope='module')
def _programs_are_forgotten():
  """Compiled programs keep memory maps; too many end the process."""
  yield
  if MAPS.exists() and MAPS.read_bytes().count(b'\n') > MOST_MAPS:
    jax.clear_caches()


@pytest.fixture
def warnings(monkeypatch):
  """The lines that are logged as warnings during a test."""
  lines = []
  monkeypatch.setattr(logging, 'warning', lambda m, *a: lines.append(m % a))
  return lines
