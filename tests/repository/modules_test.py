"""Modules are small, stand in one of thirteen places, and have tests."""

import ast
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parents[2]
LIBRARY = sorted((ROOT / 'hyperudl').rglob('*.py'))
TESTS = sorted((ROOT / 'tests').rglob('*.py'))
MOST_LINES = 300  # of a file
MOST_FUNCTION_LINES = 50
NAMES = [str(path.relative_to(ROOT)) for path in LIBRARY]


def test_the_top_of_the_library_has_thirteen_entries():
  top = {path.name for path in (ROOT / 'hyperudl').iterdir()}
  assert top - {'__init__.py', '__pycache__', 'py.typed'} == {
    *('core', 'ops', 'storage', 'nets', 'data', 'learners', 'training'),
    *('evaluation', 'plots', 'benchmark', 'models'),
    *('train.py', 'evaluate.py'),
  }


@pytest.mark.parametrize('path', LIBRARY, ids=NAMES)
def test_files_and_functions_are_short(path):
  text = path.read_text()
  assert len(text.splitlines()) <= MOST_LINES
  for node in ast.walk(ast.parse(text)):
    if isinstance(node, ast.FunctionDef):
      length = node.end_lineno - node.lineno + 1
      assert length <= MOST_FUNCTION_LINES, f'{node.name} has {length} lines'


@pytest.mark.parametrize('path', LIBRARY, ids=NAMES)
def test_a_module_says_in_one_sentence_what_it_does(path):
  sentence = (ast.get_docstring(ast.parse(path.read_text())) or '').split('\n')
  assert sentence[0].endswith('.') and len(sentence[0].split()) >= 3


def named_in_tests():
  """Dotted names that tests import, and `Guards: a/b.py, c.py.` names."""
  names = set()
  for path in TESTS:
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
      if isinstance(node, ast.ImportFrom):
        names |= {f'{node.module}.{name.name}' for name in node.names}
        names.add(node.module)
    for guarded in re.findall(r'[\w/]+\.py', ast.get_docstring(tree) or ''):
      dotted = guarded.removesuffix('.py').removesuffix('/__init__')
      names.add(f'hyperudl.{dotted.replace("/", ".")}')
  return names


def test_every_module_has_a_test_file_or_is_named_in_the_one_that_guards_it():
  named, unguarded = named_in_tests(), []
  for path in LIBRARY:
    module = path.relative_to(ROOT / 'hyperudl').with_suffix('')
    if module.name in ('__init__', '__main__'):
      module = module.parent
    beside = ROOT / 'tests' / module.parent / f'{module.name}_test.py'
    dotted = '.'.join(('hyperudl', *module.parts))
    if module.parts and dotted not in named and not beside.exists():
      unguarded.append(dotted)
  assert not unguarded


def test_no_test_uses_a_private_name():
  for path in TESTS:
    tree = ast.parse(path.read_text())
    modules = set()
    for node in tree.body:
      if isinstance(node, ast.ImportFrom) and node.module.startswith('hyper'):
        for name in node.names:
          assert not name.name.startswith('_') or name.name == '__main__', path
          modules.add(name.asname or name.name)
    for node in ast.walk(tree):
      if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        private = node.attr.startswith('_') and not node.attr.startswith('__')
        known = node.value.id in modules and node.attr not in (
          '_replace',
          '_fields',
          '_asdict',
        )
        assert not (private and known), f'{path}: {node.value.id}.{node.attr}'


def test_tests_are_found_by_name():
  for path in TESTS:
    if path.name.endswith('_test.py'):
      continue
    functions = [
      node.name
      for node in ast.parse(path.read_text()).body
      if isinstance(node, ast.FunctionDef)
    ]
    assert not [name for name in functions if name.startswith('test_')], path
