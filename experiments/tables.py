"""Prints a results page: markdown tables of the records of results."""

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence

import numpy as np
import pandas as pd

from experiments import page as page_lib
from experiments import records as records_lib
from hyperudl.evaluation import statistics

# (row, result) -> its records, one a seed.
Lookup = Callable[[str, str], list[dict]]


def markdown(
  header: Sequence[str], rows: Iterable[Sequence[str]], align: str = 'left'
) -> str:
  """Return a table in markdown, without empty columns."""
  frame = pd.DataFrame(list(rows), columns=list(header))
  frame = frame.loc[:, (frame != '').any().to_numpy()]
  aligned = [align] * frame.shape[1]
  return frame.to_markdown(index=False, disable_numparse=True, colalign=aligned)


def interval(
  mean: float, half: float | None, digits: int, sign: str = ''
) -> str:
  """Return '74.5 +- 2.0', or only the mean if `half` is None."""
  text = f'{mean:{sign}.{digits}f}'
  return text if half is None else f'{text} +- {half:.{digits}f}'


def page_text(
  page: page_lib.Page, records: Mapping[tuple[str, int | str, str], dict]
) -> str:
  """Return the tables of a page.

  These are accuracies, differences to other rows, other scores, gains by family
  of shifts, and matrices of sequences of tasks, as far as the page has them.

  Args:
    page: with the names of the data sets filled in.
    records: (row, seed, result) -> record of `records.py`.
  """
  of = lambda row, result: [
    records[key]
    for key in records_lib.ordered(records)
    if key[::2] == (row, result)
  ]
  results = page.results()
  scored = [n for n in results if page.scored in n] if page.scores else []
  plain = [n for n in results if page.both or n not in scored]
  rows = [row for row in page.rows if any(of(row, n) for n in results)]
  if page.columns:
    parts = _by_setting(page, rows, plain, of)
  else:
    references = {row: page.rows[row].reference for row in rows}
    parts = [_accuracies(rows, plain, results, of)]
    parts.append(_differences(rows, plain, references, of))
  parts.append(_scores(page, rows, scored, of))
  parts.append(_details(page, rows, scored, of))
  parts.append(_families(rows, results, of))
  parts.append(_matrices(rows, results, of))
  return '\n'.join(f'{part}\n' for part in parts if part)


def cell(records: Iterable[dict], score: str, percent: bool = True) -> str:
  """Return '74.5 +- 2.0 (76.1, 72.1, 75.3)': mean, interval, every seed.

  Args:
    records: of one row and result, one a seed, and that over all seeds.
    score: name of a number; differences have a sign.
    percent: whether to print a fraction in percent, with one digit.
  """
  records = [one for one in records if one.get(score) is not None]
  seeds = [one for one in records if one['seed'] != records_lib.ALL]
  if not seeds:
    return ''
  scale, digits = (100, 1) if percent else (1, 3)
  sign = '+' if ' - ' in score else ''
  means = [one[score] for one in seeds]
  halves = [one.get(f'{score}_ci95') for one in seeds]
  mean, half = statistics.pooled_ci95(means, halves)
  for one in records:
    if one.get('seeds') == [each['seed'] for each in seeds]:
      mean, half = one[score], one[f'{score}_ci95']
  half = half if half is None else scale * half
  text = interval(scale * mean, half, digits, sign)
  if len(means) > 1:
    each = ', '.join(f'{scale * one:{sign}.{digits}f}' for one in means)
    text += f' ({each})'
  return text


def _accuracies(rows, names, results, of):
  """Return the first table: a line for each row, a column for each result.

  Pixels, nearest neighbours by cosine, are those of the first result.
  """
  lines = []
  for row in rows:
    every = [
      one
      for name in results
      for one in of(row, name)
      if one['seed'] != records_lib.ALL
    ]
    minutes = {one['seed']: one['minutes'] for one in every}
    lines.append(
      [
        row,
        *(cell(of(row, name), 'accuracy') for name in names),
        cell(every[:1], 'accuracy_pixels') if names else '',
        'yes' if every[0]['transductive'] else 'no',
        ', '.join(sorted({str(one.get('episodes', '')) for one in every})),
        str(every[0]['step']),
        f'{np.mean(list(minutes.values())):.0f}',
      ]
    )
  header = ['row', *names, 'pixels', 'transductive', 'episodes']
  header += ['updates', 'minutes']
  return markdown(header, lines)


def _by_setting(page, rows, results, of):
  """Return both tables with a line for each setting of each row."""
  settings = dict.fromkeys(
    name.removesuffix(column)
    for name in results
    for column in page.columns
    if name.endswith(column)
  )
  title = lambda row, setting: f'{row}, {setting[:-1]}' if setting else row
  lines = {
    title(row, setting): (row, setting) for row in rows for setting in settings
  }
  cells = lambda line, column: of(lines[line][0], lines[line][1] + column)
  some = [line for line in lines if any(cells(line, c) for c in page.columns)]
  references = {line: page.rows[lines[line][0]].reference for line in some}
  return [
    _accuracies(some, page.columns, page.columns, cells),
    _differences(some, page.columns, references, cells),
  ]


def _differences(rows, names, references, of):
  """Return differences paired by episode and seed; n: number of pairs."""
  lines = []
  for row in rows:
    score = page_lib.difference(references[row])
    cells = [cell(of(row, name), score) for name in names]
    if any(cells):
      pairs = {_pairs(of(row, name), score) for name in names} - {''}
      lines.append([row, references[row], *cells, ', '.join(sorted(pairs))])
  return markdown(['row', 'over', *names, 'n'], lines) if lines else ''


def _pairs(records, score):
  """Return '3 x 1000', seeds and episodes of a paired difference."""
  records = [
    one
    for one in records
    if one.get(score) is not None and one['seed'] != records_lib.ALL
  ]
  if not records:
    return ''
  counts = {one.get(f'{score}_n', one.get('episodes', '?')) for one in records}
  return f'{len(records)} x {", ".join(map(str, sorted(counts)))}'


def _scores(page, rows, names, of):
  """Return the second table: one line for each row and result."""
  pairs = [(row, name) for row in rows for name in names]
  if page.by_result:
    pairs = [(row, name) for name in names for row in rows]
  lines = []
  for row, name in pairs:
    cells = [
      cell(of(row, name), score, title.endswith('%'))
      for score, title in page.scores.items()
    ]
    cells += [smallest(of(row, name), page.smallest[t]) for t in page.smallest]
    if any(cells):
      lines.append([row, name, *cells])
  header = ['row', 'result', *page.scores.values(), *page.smallest]
  return markdown(header, lines) if lines else ''


def _details(page, rows, names, of):
  """Return the table of `page.details`: one line for each row and result."""
  lines = []
  for name in names:
    for row in rows:
      cells = [
        cell(of(row, name), score, title.endswith('%'))
        for score, title in page.details.items()
      ]
      if any(cells):
        lines.append([row, name, *cells])
  header = ['row', 'result', *page.details.values()]
  return markdown(header, lines) if lines else ''


def smallest(records: list[dict], scores: Sequence[str]) -> str:
  """Return the cell of the difference with the smallest mean, and its name.

  Args:
    records: of one row and result.
    scores: names of paired differences; those that are missing are left out.
  """
  means = {}
  for score in scores:
    values = [one[score] for one in records if one.get(score) is not None]
    if values:
      means[score] = np.mean(values)
  if not means:
    return ''
  score = min(means, key=means.__getitem__)
  return f'{cell(records, score)}, {score.partition(" - ")[2]}'


def _families(rows, names, of):
  """Return the table of gains by family of shifts, a line for each row."""
  start = f'{records_lib.GAIN} @ '
  gains = [
    (name, score)
    for name in names
    for score in dict.fromkeys(
      score
      for row in rows
      for one in of(row, name)
      for score in one
      if score.startswith(start) and not score.endswith(('_ci95', '_n'))
    )
  ]
  lines = [
    [row, *(cell(of(row, n), score) for n, score in gains)] for row in rows
  ]
  header = [f'{score.removeprefix(start)} ({name})' for name, score in gains]
  title = 'Gain by family, %:\n\n'
  lines = [line for line in lines if any(line[1:])]
  return title + markdown(['row', *header], lines) if lines else ''


def _matrices(rows, names, of):
  """Return tables A[t, tau]: accuracy on task tau after task t, over seeds."""
  parts = []
  for row in rows:
    for name in names:
      for key in ('matrix_class', 'matrix_task'):
        several = [one[key] for one in of(row, name) if key in one]
        if not several:
          continue
        matrix = 100 * np.mean(several, axis=0)
        parts.append(f'`{row}`, {name}, {key.removeprefix("matrix_")}:')
        cells = [
          [
            str(t + 1),
            *(f'{v:.1f}' if tau <= t else '' for tau, v in enumerate(values)),
          ]
          for t, values in enumerate(matrix)
        ]
        header = ['t', *(f'tau = {tau + 1}' for tau in range(len(matrix)))]
        parts.append(markdown(header, cells))
  title = 'A[t, tau]: accuracy (%) on task tau once task t has been met.'
  return '\n\n'.join([title, *parts]) if parts else ''
