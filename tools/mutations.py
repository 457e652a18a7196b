"""Shows which tests fail when one line of the numerics is wrong.

  python -m tools.mutations             # some 20 minutes on 2 cores
  python -m tools.mutations --only=3,7  # these numbers

Each mutation is a plausible mistake: a wrong sign or axis, a mask or weight
that is ignored, a factor or stop_gradient that is missing. Mutations are
applied one at a time to a temporary copy of the repository, where the test
files that guard the mutated module are run until the first failure. Prints
number, file, 'killed' or 'SURVIVED', seconds and the test that failed.

Exits with 1 if a mutation survives without an entry in REASONS, or if its tests
do not run. Without mutations the tests are expected to pass.
"""

import argparse
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time
from typing import NamedTuple

from tools import mutation_table

ROOT = pathlib.Path(__file__).parents[1]

# Why a mutation that survives needs no test: {number: reason}.
REASONS: dict[int, str] = {}


class Mutation(NamedTuple):
  """One mistake in a module, and the test files that guard the module."""

  path: str  # from the root of the repository
  original: str
  mutated: str
  tests: tuple[str, ...]


def read_table():
  """Returns the table as a list of mutations."""
  mutations = []
  for key, pairs in mutation_table.TABLE.items():
    path, *tests = key.split()
    tests = tests or [path.replace('.py', '_test.py')]
    tests = tuple(f'tests/{test}' for test in tests)
    mutations += [Mutation(f'hyperudl/{path}', *p, tests) for p in pairs]
  return mutations


MUTATIONS = read_table()
PYTEST = (sys.executable, '-m', 'pytest', '-x', '-q', '-p', 'no:cacheprovider')


def copy_repository(folder):
  """Copies all files that git knows or does not ignore."""
  command = ['git', 'ls-files', '-co', '--exclude-standard', '-z']
  names = subprocess.check_output(command, cwd=ROOT, text=True)
  for name in names.split('\0'):
    if (ROOT / name).is_file():
      (folder / name).parent.mkdir(parents=True, exist_ok=True)
      shutil.copy(ROOT / name, folder / name)


def run_tests(folder, tests):
  """Returns a verdict, and the test that failed or why none could run."""
  cache = os.environ.get('JAX_COMPILATION_CACHE_DIR', ROOT / '.jax_cache')
  done = subprocess.run(
    [*PYTEST, *tests],
    cwd=folder,
    env={
      **os.environ,
      'PYTHONPATH': str(folder),
      'PYTHONDONTWRITEBYTECODE': '1',  # stale code could hide a mutation
      'JAX_COMPILATION_CACHE_DIR': str(cache),
    },
    capture_output=True,
    text=True,
    check=False,
  )
  failed = re.search(r'^(?:FAILED|ERROR) (.+)$', done.stdout, re.M)
  if done.returncode == 1 and failed:
    return 'killed', failed[1][:120]  # the test, and how it failed
  if done.returncode == 0:
    return 'SURVIVED', ''
  return 'BROKEN', (done.stdout + done.stderr)[-2000:]


def run_mutation(folder, mutation):
  """Returns what `run_tests` does for a copy with one mutation."""
  path = folder / mutation.path
  text = path.read_text()
  if text.count(mutation.original) != 1:
    return 'BROKEN', f'not once in the file: {mutation.original}'
  path.write_text(text.replace(mutation.original, mutation.mutated))
  try:
    return run_tests(folder, mutation.tests)
  finally:
    path.write_text(text)


def main(only):
  """Runs the mutations with these numbers; returns the exit code."""
  left = {}
  with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name)
    copy_repository(folder)
    for number in only:
      mutation, start = MUTATIONS[number - 1], time.time()
      print(f'{number:3d} {mutation.path}', end=' ', flush=True)
      verdict, detail = run_mutation(folder, mutation)
      print(f'{verdict} {time.time() - start:.0f} s {detail}', flush=True)
      if verdict != 'killed':
        left[number] = verdict
  for number, verdict in left.items():
    _, original, mutated, _ = MUTATIONS[number - 1]
    reason = REASONS.get(number, '')
    print(f'{verdict} {number}: {original!r} -> {mutated!r} {reason}')
  print(f'{len(only) - len(left)} of {len(only)} killed')
  unexplained = [n for n in left if left[n] == 'BROKEN' or n not in REASONS]
  return 1 if unexplained else 0


if __name__ == '__main__':
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--only', help='numbers, separated by commas')
  chosen = parser.parse_args().only
  everything = range(1, len(MUTATIONS) + 1)
  sys.exit(main([int(n) for n in chosen.split(',')] if chosen else everything))
