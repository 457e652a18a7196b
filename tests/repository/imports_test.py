"""Imports point one way, as the syntax trees of all files say."""

import ast
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[2]
FILES = {
  '.'.join(path.relative_to(ROOT).with_suffix('').parts): path
  for folder in ('hyperudl', 'configs')
  for path in sorted((ROOT / folder).rglob('*.py'))
}


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


def test_one_file_knows_each_heavy_package():
  assert importers('orbax') == {'hyperudl.storage.checkpoints'}
  assert importers('tensorboardX') == {'hyperudl.storage.metrics'}
  assert importers('tensorflow') == set()
  assert importers('tensorflow_datasets') <= {'hyperudl.data.datasets.tfds'}
  assert importers('torch') == set()


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
