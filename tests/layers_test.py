"""Imports point one way, as the syntax trees of all files say."""

import ast
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
FILES = {
  '.'.join(path.relative_to(ROOT).with_suffix('').parts): path
  for folder in ('hyperudl', 'configs')
  for path in sorted((ROOT / folder).rglob('*.py'))
}
MAINS = (
  'train',
  'evaluate',
  'benchmark',
  'benchmark_learner',
  'plots',
  'precompute',
  'encode',
)
# Besides `data.convert`, whose flags are its own.
COMMAND_LINE = {f'hyperudl.{name}' for name in (*MAINS, 'cli')}
SHARED = {
  'runs',
  'feeding',
  'preparing',
  'evaluation',
  'uncertainty',
  'selection',
  'cli',
  'workloads',
}
STORES = {'checkpoint', 'metrics', 'processes', 'storage', 'stats'}


def imports(path):
  """The modules that a file imports, anywhere in it."""
  found = set()
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.Import):
      found |= {name.name for name in node.names}
    elif isinstance(node, ast.ImportFrom):
      assert node.level == 0, f'{path}: relative import'
      found |= {f'{node.module}.{name.name}' for name in node.names}
  return found


def layer(module):
  """A number; a file imports only from its own layer or a lower one."""
  parts = module.split('.')[1:]
  if not parts:
    return 0
  name = parts[0]
  if name == 'core':
    return 0
  if name == 'learners':
    return 3
  if name in ('nets', 'data') or name in STORES:
    return 2 if name in ('nets', 'data') else 1
  if name in ('loop', 'strategies'):
    return 4
  if name in SHARED:
    return 5
  return 6 if name in MAINS else 2


def ours(path):
  """The modules of this package that a file imports."""
  found = set()
  for name in imports(path):
    if name.split('.')[0] != 'hyperudl':
      continue
    while name not in FILES and f'{name}.__init__' not in FILES:
      name = name.rpartition('.')[0]
    found.add(name)
  return found - {'hyperudl'}


def importers(package):
  """The modules that import `package` or a part of it."""
  return {
    module
    for module, path in FILES.items()
    if any(f'{n}.'.startswith(f'{package}.') for n in imports(path))
  }


@pytest.mark.parametrize('module', FILES)
def test_imports_point_down(module):
  if module.startswith('configs.'):
    used = {name.split('.')[0] for name in imports(FILES[module])}
    assert not used & {'jax', 'hyperudl', 'flax', 'optax'}
    return
  for other in ours(FILES[module]):
    assert layer(other) <= layer(module), f'{module} imports {other}'


def test_the_lowest_files_know_core_only():
  allowed = {f'hyperudl.{name}' for name in ('core', 'losses', 'strategies')}
  names = 'core losses emit strategies loop inner config stats'
  for name in names.split():
    others = ours(FILES[f'hyperudl.{name}'])
    assert others <= allowed, f'{name} imports {others - allowed}'
  assert ours(FILES['hyperudl.core']) == set()
  assert ours(FILES['hyperudl.metrics']) <= {
    'hyperudl.core',
    'hyperudl.storage',
  }
  assert ours(FILES['hyperudl.checkpoint']) <= {
    'hyperudl.core',
    'hyperudl.storage',
  }


def test_a_learner_imports_no_loop_data_loader_or_store():
  for module, path in FILES.items():
    if module.startswith(('hyperudl.learners.', 'hyperudl.nets.')):
      forbidden = {f'hyperudl.{name}' for name in {*STORES, *SHARED, *MAINS}}
      forbidden |= {'hyperudl.loop', 'hyperudl.config', 'hyperudl.data.arrays'}
      assert not ours(path) & forbidden, module


def test_one_file_knows_each_heavy_package():
  assert importers('orbax') == {'hyperudl.checkpoint'}
  assert importers('tensorboardX') == {'hyperudl.metrics'}
  assert importers('tensorflow') == set()
  assert importers('tensorflow_datasets') <= {'hyperudl.data.tfds_sets'}
  assert importers('torch') == set()


def test_flags_are_for_the_command_line_only():
  assert importers('absl.flags') <= {*COMMAND_LINE, 'hyperudl.data.convert'}
  assert importers('absl.app') == {'hyperudl.cli'}
  assert importers('ml_collections.config_flags') <= COMMAND_LINE


def calls(path, name):
  """Line numbers of the calls of a plain function `name`."""
  return [
    node.lineno
    for node in ast.walk(ast.parse(path.read_text()))
    if isinstance(node, ast.Call)
    and isinstance(node.func, ast.Name)
    and node.func.id == name
  ]


def test_nothing_prints_or_splats_a_config():
  for module, path in FILES.items():
    assert calls(path, 'print') == [], module
    assert calls(path, 'breakpoint') == [], module


def test_tests_are_found_by_name():
  names = {path.name for path in (ROOT / 'tests').glob('*.py')}
  tested = {name for name in names if name.endswith('_test.py')}
  for name in names - tested:
    text = (ROOT / 'tests' / name).read_text()
    tree = ast.parse(text)
    functions = [n for n in tree.body if isinstance(n, ast.FunctionDef)]
    assert not [f for f in functions if f.name.startswith('test_')], name


def test_the_trainer_needs_no_tensorflow():
  program = (
    'import sys\nimport hyperudl.train\nimport hyperudl.evaluate\n'
    'assert "tensorflow" not in sys.modules\n'
    'assert "tensorflow_datasets" not in sys.modules\n'
    'assert "matplotlib" not in sys.modules\n'
  )
  command = [sys.executable, '-c', program]
  done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
  assert done.returncode == 0, done.stderr
