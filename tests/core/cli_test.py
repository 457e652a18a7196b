"""What all commands share: the cache of compiled programs."""

import os
import subprocess
import sys

from tests.testing import runs

COMPILE = """
from hyperudl.core import cli
cli.set_up()
import jax, warnings
print(jax.config.jax_compilation_cache_dir)
warnings.warn("Error writing persistent compilation cache entry for 'x'")
warnings.warn('another')
"""


def compile_with(cache):
  """Output and stderr of a process with this folder for caches."""
  environment = {**os.environ, 'XDG_CACHE_HOME': str(cache)}
  environment.pop('JAX_COMPILATION_CACHE_DIR', None)
  done = subprocess.run(
    [sys.executable, '-c', COMPILE],
    cwd=runs.ROOT,
    env=environment,
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr
  return done.stdout.strip(), done.stderr


def test_programs_are_cached_in_the_folder_of_caches(tmp_path):
  assert compile_with(tmp_path)[0] == str(tmp_path / 'hyperudl' / 'xla')


def test_a_cache_that_cannot_be_written_is_one_line(tmp_path):
  path = tmp_path / 'file'
  path.write_text('')
  out, err = compile_with(path)
  assert out == 'None'
  assert f'{path}/hyperudl/xla may not be written' in err
  assert 'Error writing' not in err and 'another' in err
