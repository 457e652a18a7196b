"""Classifying ten times as many files takes no more memory."""

import csv
import sys

import pytest

from hyperudl.data.datasets import image_inputs
from tests.testing import image_sets
from tests.testing import models
from tests.testing import runs

FEW, MANY = 1_000, 10_000
SIDE = 64  # pixels; if 9,000 colour images stayed in memory, 110 MB as bytes
MOST = 32.0  # megabytes; repeated measurements differ by some 20
# The allocator of Linux gives arrays back at once: otherwise it keeps up to 120
# MB of them, more with each of the first 2,000 files, which hides what is used.
VARIABLES = {'MALLOC_MMAP_THRESHOLD_': '65536'}
# The peak of the memory of a process, without that of the one that started it.
PROGRAM = """
import atexit, pathlib, sys
from hyperudl.models import command
def tell():
  lines = pathlib.Path('/proc/self/status').read_text().splitlines()
  (peak,) = [line for line in lines if line.startswith('VmHWM:')]
  sys.stdout.write(peak.split()[1])
atexit.register(tell)
command.main()
"""


def peak_megabytes(place, count):
  """Classify so many files in a process, and return the peak of its memory."""
  words = ['classify', f'--model={place}/model.npz', f'--out={place}/out.csv']
  words += [f'--support={place}/support', f'--query={place}/{count}']
  command = [sys.executable, '-c', PROGRAM, *words]
  done = runs.finish(runs.launch(command, VARIABLES))
  assert done.code == 0, done.err
  with open(place / 'out.csv', encoding='utf-8', newline='') as file:
    labels = [row['label'] for row in csv.DictReader(file)]
  assert len(labels) == count and set(labels) <= set(models.CLASSES)
  return int(done.out) / 1024


@pytest.mark.slow
def test_ten_times_as_many_files_take_no_more_memory(tmp_path):
  models.make(inputs=image_inputs.Inputs(SIDE, SIDE, 3)).save(
    tmp_path / 'model.npz'
  )
  images = image_sets.pixels(3, 2, SIDE, channels=3)
  for name, of_class in zip(models.CLASSES, images):
    for row, image in enumerate(of_class):
      image_sets.draw(tmp_path / 'support' / name / f'{row}.png', image)
  content = (tmp_path / 'support' / 'ant' / '0.png').read_bytes()
  for count in (FEW, MANY):
    (tmp_path / str(count)).mkdir()
    for row in range(count):
      (tmp_path / str(count) / f'{row}.png').write_bytes(content)
  few, many = (peak_megabytes(tmp_path, count) for count in (FEW, MANY))
  print(f'{FEW} files: {few:.1f} MB, {MANY} files: {many:.1f} MB')
  assert many - few < MOST, (few, many)
