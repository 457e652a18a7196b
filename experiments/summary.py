"""Print the results of one run as a table.

python -m experiments.summary WORKDIR
"""

import json
import pathlib
import sys

from experiments import tables

COLUMNS = {
  'pixels': 'accuracy_pixels',
  'unadapted': 'accuracy_unadapted',
  'adapted': 'accuracy',
  'gain': 'gain_step',
  'noise control': 'accuracy_placebo',
  'gain over noise control': 'gain_data',
}


def main(workdir: str) -> None:
  """Print one line for the last evaluation of each eval/*.jsonl."""
  files = sorted(pathlib.Path(workdir, 'eval').glob('*.jsonl'))
  if not files:
    sys.exit(f'no results in {workdir}/eval; run hyperudl.evaluate')
  lines = []
  for file in files:
    result = json.loads(file.read_text().splitlines()[-1])
    scores = [_cell(result, name) for name in COLUMNS.values()]
    lines.append(
      [file.stem, f'{result["step"]}', f'{result["episodes"]}', *scores]
    )
  print(
    'Accuracy in %, mean +- 95% interval over episodes; gains are paired;\n'
    'noise control = the same inner steps on noise images.\n'
  )
  print(tables.markdown(['result', 'step', 'episodes', *COLUMNS], lines))


def _cell(result, name):
  if result.get(name) is None:
    return ''
  half = result[f'{name}_ci95']
  return tables.interval(
    100 * result[name], half if half is None else 100 * half, digits=1
  )


if __name__ == '__main__':
  if len(sys.argv) != 2:
    sys.exit('usage: python -m experiments.summary WORKDIR')
  main(sys.argv[1])
