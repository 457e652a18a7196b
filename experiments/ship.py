"""Write a model that comes with the library from the run of a results page.

  python -m experiments.run models --dataset=glyphs --data_dir=DIR \
    --out=docs/results/tables/models-glyphs.md
  python -m experiments.ship glyphs

The first command trains the networks and tests them, on DIR/NAME.npz of the
sets of `experiments/pages/models.py`. The second writes `hyperudl/models/
NAME.npz`, which `hyperudl.load(NAME)` reads: the network of its best checkpoint
on validation classes, calibrated on these, with a card that says what it was
trained on and what it reaches.
"""

import argparse
import dataclasses
import json
import pathlib
from typing import NamedTuple

from hyperudl import core
from hyperudl import models
from hyperudl.core import cli
from hyperudl.models import loading


class Shipped(NamedTuple):
  """Where a model comes from, and what its card says."""

  page: str  # of results
  row: str  # of that page
  dataset: str
  licence: str  # of the data
  card: str


SHIPPED = {
  'glyphs': Shipped(
    *('models', 'protonet', 'glyphs'),
    'characters drawn from the outlines of DejaVu Sans (see NOTICE)',
    'Characters and line drawings, light on dark or dark on light, also scans: '
    '2 to 20 classes of one labelled image or more each; unlabelled images '
    'help. A prototypical network, trained on 20 characters at a time under '
    'all families of shifts and on drawings made to look like scans. Not for '
    'photographs.',
  ),
}


def ship(name: str, runs: pathlib.Path, out: pathlib.Path) -> dict:
  """Write the file of a model and return its description, `Model.about`.

  Args:
    name: one of `SHIPPED`.
    runs: folder of all runs, as in `experiments.run`.
    out: file to write, by default where the library looks for it.

  Raises:
    core.BadInput: the run has not ended or has not been evaluated.
  """
  page, row, dataset, licence, card = SHIPPED[name]
  workdir = runs / page / dataset / f'{row}-0'
  if not (workdir / 'DONE').exists():
    raise core.BadInput(
      f'{workdir}: no finished run; first `python -m experiments.run {page} '
      f'--dataset={dataset} --rows={row} --runs={runs}`'
    )
  accuracies = read_accuracies(workdir)
  if not accuracies:
    raise core.BadInput(f'{workdir}/eval: no results of the page `{page}`')
  model = models.load(workdir).calibrate()
  about = {**model.about, 'data': dataset, 'licence': licence, 'card': card}
  about['metrics'] = accuracies
  dataclasses.replace(model, about=about).save(out)
  return about


def read_accuracies(workdir: pathlib.Path) -> dict[str, dict[str, float]]:
  """Return the accuracies of a run's results, by the name of the result."""
  found = {}
  for path in sorted((workdir / 'eval').glob('*way-*shot-*.jsonl')):
    row = json.loads(path.read_text().splitlines()[-1])
    found[path.stem] = {
      name: round(row[name], 4)
      for name in ('accuracy', 'accuracy_ci95', 'accuracy_unadapted')
      if name in row
    } | {'episodes': row['episodes']}
  return found


def main() -> None:
  """Run the command line."""
  parser = argparse.ArgumentParser(
    prog='python -m experiments.ship',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument('name', choices=SHIPPED)
  parser.add_argument('--runs', default='runs', type=pathlib.Path)
  parser.add_argument('--out', default=None, type=pathlib.Path)
  arguments = parser.parse_args()
  here = pathlib.Path(loading.__file__).with_name(f'{arguments.name}.npz')
  try:
    about = ship(arguments.name, arguments.runs, arguments.out or here)
  except core.Error as error:
    cli.fail(error.exit_code, str(error))
  print(json.dumps(about, indent=2))


if __name__ == '__main__':
  main()
