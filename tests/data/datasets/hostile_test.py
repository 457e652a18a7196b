"""Hostile files are refused in one line, within bounds of memory and time.

Guards: data/datasets/pickle_machine.py, data/datasets/pickle_values.py.
"""

import functools
import pathlib

import pytest

from tests.testing import hostile
from tests.testing import runs

MEGABYTES = 300  # beside the size of the file
SECONDS = 5

PICKLES = hostile.pickles()
MINI = 'mini-imagenet-cache-{}.pkl'


def write(folder):
  """Write the files; return the commands that read them, and nothing last."""
  commands = {}
  for label, content in PICKLES.items():
    place = folder / label
    place.mkdir()
    for tag in ('train', 'val', 'test'):
      (place / MINI.format(tag)).write_bytes(content)
    flags = ['--kind=mini', f'--source={place}', '--name=set']
    flags += [f'--out={place}/out']
    commands[label] = ('hyperudl.data.convert', flags)
  for file, make in hostile.ARRAYS.items():
    (folder / file).write_bytes(make())
    flags = [str(folder), pathlib.Path(file).stem]
    commands[file] = ('tests.testing.read_set', flags)
  return {**commands, 'nothing': ('hyperudl.data.convert', ['--help'])}


@functools.cache
def results():
  """Return label -> (code, stdout, stderr, CPU seconds, megabytes)."""
  folder = runs.data_dir() / 'hostile'
  folder.mkdir()
  commands = write(folder)
  done = runs.in_forks(commands.values())
  return dict(zip(commands, done))


@pytest.mark.parametrize('label', [*PICKLES, *hostile.ARRAYS])
def test_a_hostile_file_is_refused_in_one_line_within_bounds(label):
  code, out, err, seconds, megabytes = results()[label]
  assert (code, out, err.count('\n')) == (2, '', 1), err[-2000:]
  assert 'Traceback' not in err and len(err) < 1000
  file = MINI.format('train') if label in PICKLES else ''
  size = (runs.data_dir() / 'hostile' / label / file).stat().st_size / 1e6
  assert megabytes - results()['nothing'][4] < MEGABYTES + size
  assert seconds < SECONDS
  assert not (runs.data_dir() / 'hostile' / label / 'out').exists()
  assert not (runs.ROOT / 'hostile-was-here').exists()
