"""Times torch programs on request, for `compare.py`.

Writes the list of its programs, then for each number that it reads the seconds
that one call of that program took.
"""

import json
import sys
import time

import torch

from benchmarks import peers
from hyperudl.benchmark import workloads


def main(suite):
  """Reads numbers until the input ends."""
  torch.manual_seed(0)
  made = {}
  for row in workloads.make_rows(suite):
    if row.name not in made and row.batch > 1:
      made[row.name] = peers.programs(row)
  names = [(row, label) for row, found in made.items() for label in found]
  print(json.dumps(names), flush=True)
  for line in sys.stdin:
    row, label = names[int(line)]
    start = time.perf_counter()
    made[row][label]()
    print(json.dumps(time.perf_counter() - start), flush=True)


if __name__ == '__main__':
  main(sys.argv[1])
