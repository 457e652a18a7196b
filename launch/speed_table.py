"""Prints benchmark rows as a table: python launch/speed_table.py FILE.

FILE holds what `python -m hyperudl.benchmark` printed.
"""

import json
import pathlib
import sys


def main(path):
  """Prints one line a row; ratios are to the naive row of the same sizes."""
  rows = [json.loads(s) for s in pathlib.Path(path).read_text().splitlines()]
  naive = {
    row['name'].removesuffix(' naive'): row['episodes_per_second']
    for row in rows
    if row['formulation'] == 'naive'
  }
  print(
    '| row | strategy | devices | episodes/s | ratio to naive | GFLOP/s '
    '| GEMM peak beside it | share | MB |'
  )
  print('|---' * 9 + '|')
  for row in rows:
    size = row['name'].split(' naive')[0].split(' slices')[0]
    speed = row['episodes_per_second']
    ratio = f'{speed / naive[size]:.1f}' if size in naive else ''
    print(
      f'| {row["name"]} | {row["strategy"]}, {row["formulation"]} '
      f'| {row["devices"]} | {speed:.1f} | {ratio} | {row["gflops"]:.0f} '
      f'| {row["gemm_peak_gflops"]:.0f} | {row["share_of_peak"]:.3f} '
      f'| {row["peak_mb"]:.0f} |'
    )


if __name__ == '__main__':
  if len(sys.argv) != 2:
    sys.exit('usage: python launch/speed_table.py FILE')
  main(sys.argv[1])
