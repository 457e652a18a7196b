"""Imports point one way, and few modules know flags and heavy packages."""

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
MAINS = {
  'hyperudl.train',
  'hyperudl.evaluate',
  'hyperudl.benchmark.__main__',
  'hyperudl.plots.__main__',
  'hyperudl.data.convert',
  'hyperudl.data.language.clip_features',
  'hyperudl.training.precompute',
  'hyperudl.evaluation.features',
  'hyperudl.models.classify',
  'hyperudl.models.demo.__main__',
  'hyperudl.models.export',
}


def imports(path):
  """The modules that a file imports, anywhere in it."""
  names = set()
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.Import):
      names |= {name.name for name in node.names}
    elif isinstance(node, ast.ImportFrom):
      assert node.level == 0, f'{path}: relative import'
      names |= {f'{node.module}.{name.name}' for name in node.names}
  return names


def importers(package):
  """The modules that import `package` or a part of it."""
  return {
    module
    for module, path in FILES.items()
    if any(f'{n}.'.startswith(f'{package}.') for n in imports(path))
  }


def test_packages_import_only_what_stands_below_them():
  command = pathlib.Path(sys.executable).with_name('lint-imports')
  done = subprocess.run([command], capture_output=True, text=True, cwd=ROOT)
  assert done.returncode == 0, done.stdout


def test_one_file_knows_each_heavy_package():
  assert importers('orbax') == {'hyperudl.storage.checkpoints'}
  assert importers('tensorboardX') == {'hyperudl.storage.tensorboard'}
  assert importers('tensorflow_datasets') <= {'hyperudl.data.datasets.tfds'}


def test_flags_are_for_the_command_line_only():
  command_line = {*MAINS, 'hyperudl.core.cli', 'hyperudl.core.paths'}
  assert importers('absl.flags') <= command_line
  assert importers('absl.app') == {'hyperudl.core.cli'}
  assert importers('ml_collections.config_flags') <= command_line


def test_nothing_prints():
  for module, path in FILES.items():
    for node in ast.walk(ast.parse(path.read_text())):
      if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        assert node.func.id not in ('print', 'breakpoint'), module


def test_training_and_evaluating_need_neither_tensorflow_nor_matplotlib():
  program = (
    'import sys\nimport hyperudl.train\nimport hyperudl.evaluate\n'
    'assert "tensorflow" not in sys.modules\n'
    'assert "tensorflow_datasets" not in sys.modules\n'
    'assert "matplotlib" not in sys.modules\n'
  )
  command = [sys.executable, '-c', program]
  done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
  assert done.returncode == 0, done.stderr
