"""The tutorial runs from any folder, and what it says is what its cells find.

It is stored with its outputs, which `python tools/run_tutorial.py` makes.
"""

import re

import nbformat
import pytest

from tests.testing import runs
from tools import run_tutorial

# Statements of the text, before the last cell, which removes the files.
CHECKS = """
assert len(new) == 60 and len(model.inputs.shape) == 3
assert 'GEORGIAN' not in about['alphabets'][about['split'] != 'test']
assert len(set(about['alphabets'][about['split'] == 'test'])) == 5
assert (len(about['alphabets']), len(set(about['alphabets']))) == (1623, 18)
assert log[0]['accuracy'] > 1 / 5 and log[-1]['accuracy'] > 0.7
assert found['images'] == 10 and low < found['accuracy'] < high
assert found['accuracy'] < accuracy and accuracy > 0.6
assert sum(task.report['classes'].values()) == 15
assert confidence > 0.4  # of five classes, for images of none
assert 0 < is_unknown(known) < 1 / 2 < is_unknown(strangers) < 1
means = {title: values.mean() for title, values in scores.items()}
assert means['hyperudl'] > 0.2 + max(
  means['logistic regression'], means['nearest neighbour']
)
assert abs(exported - task.predict_proba(new)).max() < 1e-4
assert (again.predict_proba(new) == task.predict_proba(new)).all()
"""


def code_cells(notebook):
  return [cell for cell in notebook.cells if cell.cell_type == 'code']


def test_the_stored_outputs_are_of_these_cells():
  notebook = run_tutorial.read()
  assert run_tutorial.stored_digest(notebook) == run_tutorial.digest(notebook)
  cells = code_cells(notebook)
  counts = [cell.execution_count for cell in cells]
  assert counts == list(range(1, len(cells) + 1))
  outputs = [output for cell in cells for output in cell.outputs]
  assert {output.output_type for output in outputs} == {
    'stream',
    'display_data',
  }
  text = ''.join(o.text for o in outputs if o.output_type == 'stream')
  assert 'same answers: True' in text and '/' not in text  # no path
  assert sum('image/png' in o.get('data', ()) for o in outputs) >= 5
  assert run_tutorial.PATH.stat().st_size < 400_000


def test_its_links_lead_to_files_and_its_flags_exist():
  text = '\n'.join(
    cell.source
    for cell in run_tutorial.read().cells
    if cell.cell_type == 'markdown'
  )
  targets = re.findall(r'\]\(([^)#]+)', text)
  assert len(targets) >= 4
  for target in targets:
    assert (run_tutorial.PATH.parent / target).exists(), target
  joined = text.replace('\\\n', '')
  (command,) = re.findall(r'hyperudl classify( --.+)', joined)
  program = (runs.ROOT / 'hyperudl' / 'models' / 'classify.py').read_text()
  flags = re.findall(r'--(\w+)=', command)
  assert len(flags) == 4
  for flag in flags:
    assert re.search(rf"\(\s*'{flag}',", program), flag


@pytest.mark.slow
def test_it_runs_from_any_folder_and_what_it_says_is_so(tmp_path, monkeypatch):
  monkeypatch.delenv('XLA_FLAGS')  # of the tests: here much is computed
  monkeypatch.setenv('TMPDIR', str(tmp_path))
  notebook = run_tutorial.read()
  notebook.cells.insert(-1, nbformat.v4.new_code_cell(CHECKS))
  run_tutorial.execute(notebook, tmp_path)
  assert not list(tmp_path.glob('hyperudl-tutorial-*'))
