"""Tests run on the CPU, with compiled programs kept between runs."""

import os

os.environ['JAX_PLATFORMS'] = 'cpu'
# Tests compile far more than they compute: this halves their time. Processes
# that tests start inherit it.
os.environ.setdefault('XLA_FLAGS', '--xla_backend_optimization_level=0')

import jax

jax.config.update(
  'jax_compilation_cache_dir',
  os.environ.get('JAX_COMPILATION_CACHE_DIR', '.jax_cache'),
)
jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.5)
