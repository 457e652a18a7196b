"""Times torch programs on request, for `compare.py`.

Prints the list of its programs. Then, for each program number that it reads, it
prints the seconds that one call took.
"""

import json
import sys
import time

import torch

from experiments.peers import torch_programs
from hyperudl.benchmark import workloads


def main(suite):
  """Read program numbers until the input ends."""
  torch.manual_seed(0)
  by_name = {row.name: row for row in workloads.suite(suite)}
  programs = {
    (name, label): program
    for name, row in by_name.items()
    for label, program in torch_programs.programs(row).items()
  }
  print(json.dumps([*programs]), flush=True)
  for line in sys.stdin:
    program = [*programs.values()][int(line)]
    start = time.perf_counter()
    program()
    print(json.dumps(time.perf_counter() - start), flush=True)


if __name__ == '__main__':
  main(sys.argv[1])
