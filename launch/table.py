"""Prints the results of a run as a table: python launch/table.py WORKDIR."""

import json
import pathlib
import sys

COLUMNS = (
  ('pixels', 'accuracy_pixels'),
  ('unadapted', 'accuracy_unadapted'),
  ('adapted', 'accuracy'),
  ('gain', 'gain_step'),
  ('placebo', 'accuracy_placebo'),
  ('gain over placebo', 'gain_data'),
)


def cell(row, name):
  if row.get(name) is None:
    return ''
  half = row[f'{name}_ci95']
  return f'{100 * row[name]:.1f}' + (
    f' +- {100 * half:.1f}' if half is not None else ''
  )


def main(workdir):
  """Prints one line for the last row of each eval/*.jsonl."""
  files = sorted(pathlib.Path(workdir, 'eval').glob('*.jsonl'))
  if not files:
    sys.exit(f'table.py: no results in {workdir}/eval; run hyperudl.evaluate')
  print(
    'Accuracy in %, mean +- 95% interval over episodes; gains are paired;\n'
    'placebo = the same inner steps on noise images.\n'
  )
  print(
    '| result | step | episodes | ' + ' | '.join(c for c, _ in COLUMNS) + ' |'
  )
  print('|---' * (len(COLUMNS) + 3) + '|')
  for file in files:
    row = json.loads(file.read_text().splitlines()[-1])
    cells = [cell(row, name) for _, name in COLUMNS]
    head = f'| {file.stem} | {row["step"]} | {row["episodes"]} | '
    print(head + ' | '.join(cells) + ' |')


if __name__ == '__main__':
  if len(sys.argv) != 2:
    sys.exit('usage: python launch/table.py WORKDIR')
  main(sys.argv[1])
