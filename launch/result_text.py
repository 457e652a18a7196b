"""The text of a results page: Markdown tables of the records of results."""

from markdown_table import table_lines
import numpy as np
import result_pages

from hyperudl.evaluation import statistics

_CALIBRATION = {
  'accuracy': 'accuracy, %',
  'nll': 'NLL',
  'brier': 'Brier',
  'ece': 'ECE',
  'temperature': 'T',
  'nll_scaled': 'NLL / T',
  'ece_scaled': 'ECE / T',
  'auroc_entropy': 'AUROC entropy',
  'auroc_disagreement': 'AUROC disagreement',
}
_FORGETTING = {
  f'{score}_{scenario}{ending}': f'{title}, {scenario}, %'
  for scenario in ('class', 'task')
  for score, ending, title in (
    ('accuracy', '', 'after the last task'),
    ('accuracy', '_when_met', 'when met'),
    ('forgetting', '', 'forgetting'),
    ('backward_transfer', '', 'backward transfer'),
  )
}

# What a picture of the features hides: `learners/hallucination.py`.
_HIDDEN = {
  'diversity': 'diversity',
  'purity': 'purity',
  'prototype_error': 'prototype error',
}

# Of weights and questions in one space: `learners/hyperclip.py`.
_GUIDED = {
  'retrieval': 'retrieval, %',
  'retrieval_chance': 'chance, %',
  'gradient_cosine': 'cosine of guidance and task gradient',
  'likeness_start': 'likeness, start',
  'likeness': 'likeness, guided',
}

# By the film that adapts it: `learners/hyperldm_film.py`, `learners/udl.py`.
_ADAPTED = {
  'accuracy': 'accuracy, %',
  'gain_step': 'over unadapted, %',
  'gain_data': 'over that of noise, %',
  'accuracy_unadapted': 'unadapted, %',
  'accuracy_labelled': 'labelled, %',
}

# The second table of a page: a word in the names of its results (any, where it
# is empty) and the columns. These results are not in the first table, but for
# pages in BOTH.
SCORES = {page: ('', {}) for page in result_pages.PAGES}
BOTH = ('metric',)
SCORES['metric'] = 'shot', _HIDDEN
SCORES['gradient'] = 'uncertainty', _CALIBRATION
SCORES['continual'] = '', _FORGETTING
SCORES['film'] = '', _ADAPTED
SCORES['guidance'] = 'retrieval', _GUIDED

# Results of other pages are columns; here they are SETTING-COLUMN, and each
# setting has a line.
COLUMNS = {'guidance': ('wording-test', 'semantic-test')}


def column_of(page, result):
  """The column that a result is in."""
  ends = [each for each in COLUMNS.get(page, ()) if result.endswith(each)]
  return ends[0] if ends else result


def page(name, rows, records):
  """Accuracies, differences to other rows, other scores, matrices of sequences.

  Args:
    name: of the page.
    rows: {row: (config, flags, evaluations)} of the page.
    records: {(row, seed, result): record} of `records.py`.
  """
  results = list(dict.fromkeys(n for row in rows.values() for n in row[2]))
  of = lambda row, result: [
    records[key] for key in sorted(records) if key[::2] == (row, result)
  ]
  marker, scores = SCORES[name]
  scored = [n for n in results if marker in n] if scores else []
  both = name in BOTH
  plain = [n for n in results if both or n not in scored]
  there = [row for row in rows if any(of(row, n) for n in results)]
  references = result_pages.REFERENCES[name]
  if name in COLUMNS:
    parts = _lines_of_settings(there, plain, COLUMNS[name], references, of)
  else:
    parts = [_accuracies(there, plain, results, of)]
    parts.append(_differences(there, plain, references, of))
  parts.append(_scores(there, scored, scores, of))
  parts.append(_matrices(there, results, of))
  return '\n'.join('\n'.join(lines) + '\n' for lines in parts if lines)


def _cell(means, halves, scale, digits, sign=''):
  """'74.5 +- 2.0 (76.1, 72.1, 75.3)'; the seeds where there are several."""
  mean, half = statistics.pooled_ci95(means, halves)
  text = f'{scale * mean:{sign}.{digits}f}'
  if half is not None:
    text += f' +- {scale * half:.{digits}f}'
  if len(means) > 1:
    each = ', '.join(f'{scale * one:{sign}.{digits}f}' for one in means)
    text += f' ({each})'
  return text


def _score(found, score, scale, digits):
  """The cell of a number of the records of some seeds."""
  found = [one for one in found if one.get(score) is not None]
  if not found:
    return ''
  halves = [one.get(f'{score}_ci95') for one in found]
  return _cell([one[score] for one in found], halves, scale, digits)


def _accuracies(rows, names, results, of):
  """Pixels: nearest neighbours by cosine, of the first result."""
  lines = []
  for row in rows:
    every = [one for name in results for one in of(row, name)]
    minutes = {one['seed']: one['minutes'] for one in every}
    lines.append(
      [
        row,
        *(_score(of(row, name), 'accuracy', 100, 1) for name in names),
        _score(every[:1], 'accuracy_pixels', 100, 1) if names else '',
        'yes' if every[0]['transductive'] else 'no',
        str(every[0]['step']),
        f'{np.mean(list(minutes.values())):.0f}',
      ]
    )
  return table_lines(
    ['row', *names, 'pixels', 'transductive', 'updates', 'minutes'], lines
  )


def _lines_of_settings(rows, results, columns, references, of):
  """Accuracies and differences with a line for each setting of each row."""
  settings = {
    name.removesuffix(column): None
    for name in results
    for column in columns
    if name.endswith(column)
  }
  title = lambda row, setting: f'{row}, {setting[:-1]}' if setting else row
  lines = {
    title(row, setting): (row, setting) for row in rows for setting in settings
  }
  found = lambda line, column: of(lines[line][0], lines[line][1] + column)
  there = [line for line in lines if any(found(line, c) for c in columns)]
  others = {line: references.get(lines[line][0]) for line in there}
  return [
    _accuracies(there, columns, columns, found),
    _differences(there, columns, others, found),
  ]


def _differences(rows, names, references, of):
  """Paired, on the same episodes of the same seed."""
  lines = []
  for row in rows:
    cells, over = [], ''
    for name in names:
      found = [one['over'] for one in of(row, name) if 'over' in one]
      found = [one for one in found if one['row'] == references.get(row)]
      over = references[row] if found else over
      pairs = [one['accuracy'] for one in found]
      cells.append(_cell(*zip(*pairs), 100, 1, '+') if found else '')
    if over:
      lines.append([row, over, *cells])
  return table_lines(['row', 'over', *names], lines) if lines else []


def _scores(rows, names, scores, of):
  lines = []
  for row in rows:
    for name in names:
      kinds = [(100, 1) if t.endswith('%') else (1, 3) for t in scores.values()]
      found = of(row, name)
      cells = [_score(found, score, *k) for score, k in zip(scores, kinds)]
      if any(cells):
        lines.append([row, name, *cells])
  return (
    table_lines(['row', 'result', *scores.values()], lines) if lines else []
  )


def _matrices(rows, names, of):
  """A[t, tau]: accuracy on task tau once task t has been met, mean of seeds."""
  lines = []
  for row in rows:
    for name in names:
      found = of(row, name)
      for key in ('matrix_class', 'matrix_task'):
        several = [one[key] for one in found if key in one]
        if not several:
          continue
        matrix = 100 * np.mean(several, axis=0)
        size = len(matrix)
        lines += ['', f'`{row}`, {name}, {key.removeprefix("matrix_")}:', '']
        cells = [
          [
            str(t + 1),
            *(f'{v:.1f}' if tau <= t else '' for tau, v in enumerate(values)),
          ]
          for t, values in enumerate(matrix)
        ]
        heads = ['t', *(f'tau = {tau + 1}' for tau in range(size))]
        lines += table_lines(heads, cells)
  title = 'A[t, tau]: accuracy (%) on task tau once task t has been met.'
  return [title, *lines] if lines else []
