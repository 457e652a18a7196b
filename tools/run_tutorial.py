"""Runs `docs/tutorial.ipynb` and stores what its cells print and draw.

  python tools/run_tutorial.py

Do so after each change of a cell: a test compares the cells with those that
were run.
"""

import hashlib
import os
import pathlib
import sys

import nbclient
import nbformat

ROOT = pathlib.Path(__file__).parents[1]
PATH = ROOT / 'docs' / 'tutorial.ipynb'
SECONDS = 900  # that a cell may take
_KEY = 'sources_sha256'


def read():
  """Return the notebook, checked against its format."""
  notebook = nbformat.read(PATH, as_version=4)
  nbformat.validate(notebook)
  return notebook


def digest(notebook):
  """Return the SHA-256 of the code of a notebook."""
  code = [c.source for c in notebook.cells if c.cell_type == 'code']
  return hashlib.sha256('\0'.join(code).encode()).hexdigest()


def stored_digest(notebook):
  """Return the `digest` of what was run when the outputs were stored."""
  return notebook.metadata.get(_KEY)


def execute(notebook, folder):
  """Run all cells in a folder, in a new process, and store their outputs.

  Raises:
    nbclient.exceptions.CellExecutionError: a cell failed.
  """
  # The kernel imports the library of this repository.
  paths = [str(ROOT), os.environ.get('PYTHONPATH', '')]
  environment = {**os.environ, 'PYTHONPATH': os.pathsep.join(paths)}
  client = nbclient.NotebookClient(
    notebook,
    timeout=SECONDS,
    kernel_name='python3',
    record_timing=False,
    coalesce_streams=True,
    resources={'metadata': {'path': str(folder)}},
  )
  client.execute(env=environment)
  for cell in notebook.cells:
    if cell.cell_type == 'code':  # without warnings of libraries
      cell.outputs = [o for o in cell.outputs if o.get('name') != 'stderr']
  notebook.metadata.language_info = {'name': 'python'}
  notebook.metadata[_KEY] = digest(notebook)


def main():
  notebook = read()
  execute(notebook, PATH.parent)
  nbformat.write(notebook, PATH)
  sys.stdout.write(f'wrote {PATH}\n')


if __name__ == '__main__':
  main()
