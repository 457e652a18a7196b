"""Compares training on a set that does not fit in memory with one that does.

  python -m experiments.peers.large_set --dir=FOLDER

Generates two sets of 84 x 84 colour images in FOLDER: a large one, of
tieredImageNet's size by default (448,695 images, 9.5 GB), and one of --small
images. Then it trains the same `protonet` on both in turn, --rounds times, and
prints a JSON line for each: updates per second (the median of all lines of the
log except the first) and the peak memory of the process. The last line has the
ratio. The small set is copied to the device, the large one stays on the disk.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import zipfile

import numpy as np

SIDE = 84
CLASSES = 351  # of tieredImageNet's training part
BLOCK = 1 << 26  # bytes of noise that images are cut from


def write(path, classes, each):
  """Write noise images as a .npz of [classes, images, H, W, C]."""
  if path.exists():
    return
  noise = np.random.default_rng(0).integers(0, 256, BLOCK, np.uint8).tobytes()
  size = each * SIDE * SIDE * 3
  header = {
    'descr': '|u1',
    'fortran_order': False,
    'shape': (classes, each, SIDE, SIDE, 3),
  }
  part = path.with_suffix('.part')
  with zipfile.ZipFile(part, 'w', zipfile.ZIP_STORED) as archive:
    with archive.open('images.npy', 'w', force_zip64=True) as file:
      np.lib.format.write_array_header_2_0(file, header)
      for index in range(classes):
        remaining, start = size, 9973 * index % BLOCK
        while remaining:
          piece = noise[start : start + remaining]
          file.write(piece)
          remaining, start = remaining - len(piece), 0
    with archive.open('split.npy', 'w') as file:
      np.lib.format.write_array(file, np.array(['train'] * classes))
  os.replace(part, path)


def train(folder, name, steps, channels):
  """Return (updates per second, peak MiB) of a training in its own process."""
  with tempfile.TemporaryDirectory() as workdir:
    command = [
      sys.executable,
      '-m',
      'hyperudl.train',
      f'--config=configs/protonet.py:{name},way=5,shot=1',
      f'--workdir={workdir}',
      f'--config.data.dir={folder}',
      f'--config.learner.channels={channels}',
      f'--config.steps={steps}',
      f'--config.log_steps={max(1, steps // 6)}',
      f'--config.checkpoint_steps={steps}',
    ]
    process = subprocess.Popen(command)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
      sys.exit(os.waitstatus_to_exitcode(status))
    lines = pathlib.Path(workdir, 'train.jsonl').read_text().splitlines()
  speeds = [json.loads(line)['steps_per_second'] for line in lines]
  return statistics.median(speeds[1:]), usage.ru_maxrss / 1024


def main():
  """Write the sets, train in turns, print the lines."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--dir', required=True, type=pathlib.Path)
  parser.add_argument('--images', default=448_695, type=int)
  parser.add_argument('--small', default=20 * CLASSES, type=int)
  parser.add_argument('--steps', default=300, type=int)
  parser.add_argument('--rounds', default=2, type=int)
  parser.add_argument('--channels', default='8,8,8,8')
  arguments = parser.parse_args()
  arguments.dir.mkdir(parents=True, exist_ok=True)
  counts = {'small': arguments.small, 'large': arguments.images}
  results = {name: [] for name in counts}
  files = {name: f'noise{count}' for name, count in counts.items()}
  for name, count in counts.items():
    write(arguments.dir / f'{files[name]}.npz', CLASSES, count // CLASSES)
  for _ in range(arguments.rounds):
    for name, file in files.items():
      results[name].append(
        train(arguments.dir, file, arguments.steps, arguments.channels)
      )
  for name, rows in results.items():
    speed = statistics.median(speed for speed, _ in rows)
    row = {
      'set': name,
      'images': counts[name] // CLASSES * CLASSES,
      'steps_per_second': round(speed, 3),
      'peak_rss_mb': round(max(memory for _, memory in rows)),
    }
    print(json.dumps(row))
  of = lambda name: statistics.median(speed for speed, _ in results[name])
  print(json.dumps({'large_to_small': round(of('large') / of('small'), 3)}))


if __name__ == '__main__':
  main()
