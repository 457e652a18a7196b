"""Draws accuracy over the number of labelled images of each class."""

import pathlib
import re

from matplotlib.figure import Figure

from hyperudl import core
from hyperudl.plots import figure as figures
from hyperudl.storage import metrics


def draw(workdirs: figures.Workdirs, tag: str = '') -> Figure:
  """Draw test accuracy over `episode.shot`, one line for each run.

  Args:
    workdirs: folders of runs with eval/<K>shot-test.jsonl for several K, as
      `evaluate --once --shot=K` writes them.
    tag: if not '', read <K>shot-<tag>-test.jsonl, the results that were
      evaluated with --tag=<K>shot-<tag>.

  Raises:
    core.BadInput: if a run has fewer than two such results.
  """
  figure, ((axes,),) = figures.make(size=(6, 4))
  ending = f'shot-{tag}-test.jsonl' if tag else 'shot-test.jsonl'
  ticks = set()
  for workdir in workdirs:
    results = {}
    for path in pathlib.Path(workdir, 'eval').glob(f'*{ending}'):
      shot = path.name.removesuffix(ending)
      rows = metrics.read_jsonl(path)
      if re.fullmatch(r'\d+', shot) and rows:
        results[int(shot)] = rows[-1]
    if len(results) < 2:
      more = f' --split=test --tag=Kshot-{tag}' if tag else ''
      raise core.BadInput(
        f'{workdir} has results of {len(results)} numbers of shots, and a line '
        'needs two: run python -m hyperudl.evaluate '
        f'--workdir={workdir} --once --shot=K{more} for several K'
      )
    ks = sorted(results)
    ticks |= set(ks)
    options = {'marker': '.', 'label': pathlib.Path(workdir).name}
    figures.plot_intervals(axes, ks, [results[k] for k in ks], **options)
  axes.set_xscale('log')
  axes.set_xticks(sorted(ticks), [str(k) for k in sorted(ticks)])
  axes.minorticks_off()
  figures.finish(axes, xlabel='shots', ylabel='accuracy, 95% interval')
  return figure
