"""Prints lines of benchmarks as tables: python launch/speed_table.py FILES.

FILES hold what `python -m hyperudl.benchmark` (formulations of meta-gradients)
and `python -m hyperudl.benchmark.learner` (whole learners) have printed.
"""

import json
import pathlib
import sys

from markdown_table import print_table


def show(value, digits=1):
  """A number as text; nothing for one that is not known."""
  return '' if value is None else f'{value:.{digits}f}'


def formulations(lines):
  """One line a row; ratios are to the naive row of the same sizes."""
  naive = {
    line['name'].removesuffix(' naive'): line['episodes_per_second']
    for line in lines
    if line['formulation'] == 'naive'
  }
  rows = []
  for line in lines:
    size = line['name'].split(' naive')[0].split(' slices')[0]
    speed = line['episodes_per_second']
    rows.append(
      [
        line['name'],
        f'{line["strategy"]}, {line["formulation"]}',
        str(line['devices']),
        show(speed),
        show(speed / naive[size]) if size in naive else '',
        show(line['gflops'], 0),
        show(line['gemm_peak_gflops'], 0),
        show(line['share_of_peak'], 3),
        show(line['peak_mb'], 0),
        show(line.get('ratio'), 2),
      ]
    )
  print('## Formulations of a meta-gradient\n')
  print_table(
    (
      *('row', 'strategy', 'devices', 'episodes/s', 'ratio to naive'),
      *('GFLOP/s', 'GEMM peak beside it', 'share', 'MB', 'ratio to before'),
    ),
    rows,
  )


def learners(lines):
  """One line a row of `benchmark_learner`."""
  rows = [
    [
      line['config'],
      line['name'],
      str(line['devices']),
      str(line['processes']),
      show(line['episodes_per_second']),
      show(line['ms_per_call'], 2),
      show(line['gflops']),
      show(line['share_of_peak'], 3),
      show(line.get('temporary_mb')),
      str(line['peak_rss_mb']),
      show(line.get('ratio'), 2),
    ]
    for line in lines
  ]
  print('## Learners\n')
  print_table(
    (
      *('learner', 'row', 'devices', 'processes', 'episodes/s', 'ms a call'),
      *('GFLOP/s', 'share of GEMM peak', 'temporary MB', 'RSS, MB'),
      'ratio to before',
    ),
    rows,
  )


def main(paths):
  """Prints a table for each kind of line."""
  texts = [pathlib.Path(path).read_text().splitlines() for path in paths]
  lines = [json.loads(text) for file in texts for text in file]
  kinds = (formulations, 'formulation'), (learners, 'config')
  for table, field in kinds:
    chosen = [line for line in lines if field in line]
    if chosen:
      table(chosen)


if __name__ == '__main__':
  if len(sys.argv) < 2:
    sys.exit('usage: python launch/speed_table.py FILE ...')
  main(sys.argv[1:])
