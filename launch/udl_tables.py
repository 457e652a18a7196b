"""Tables of the runs of `launch/udl_grid.py`, in markdown.

  python launch/udl_tables.py --runs=runs/grid --split=valid

Accuracies in %, mean +- 95% interval: over episodes for one seed, by a
hierarchical bootstrap for several. Differences are paired by episode.
"""

import argparse
import pathlib

from markdown_table import print_table
import numpy as np

from hyperudl.data.episodes import shifts
from hyperudl.evaluation import statistics

# Scales of soft k-means; what plain k-means runs on in the setting `clusters`.
KMEANS = ('0.5', '1', '2', 'pixels', 'posterior', 'features')
# Measured on request: (number, what it is compared with) by column.
EXTRAS = {
  'ensemble over adapted': ('accuracy_ensemble', 'accuracy'),
  'fine-tuned over unadapted': ('accuracy_finetuned', 'accuracy_unadapted'),
}


class Results:
  """Per-episode numbers of all variants and seeds of one folder."""

  def __init__(self, folder, split, proportions, seeds=()):
    self.folder, self.end = folder, f'-{proportions}-{split}_episodes.npz'
    self.seeds, self.cache = seeds, {}

  def runs(self, variant, shift):
    """{seed: arrays} of what has been evaluated."""
    if (variant, shift) not in self.cache:
      found = {}
      for path in sorted(self.folder.glob(f'{variant}-*')):
        name, _, seed = path.name.rpartition('-')
        file = path / 'eval' / f'{shift}{self.end}'
        wanted = not self.seeds or seed in self.seeds
        if name == variant and wanted and file.exists():
          with np.load(file) as arrays:
            found[seed] = dict(arrays)
      self.cache[variant, shift] = found
    return self.cache[variant, shift]

  def table(self, variant, shift, name, minus=None, family=None):
    """[seeds, episodes] of a number, or of its difference to another one.

    Args:
      variant, shift: of the runs.
      name: of the number.
      minus: None, the name of another number of the same run, or
        'variant:name'.
      family: only episodes of this family.
    """
    rows = []
    for seed, arrays in self.runs(variant, shift).items():
      here = minus and ':' not in minus
      if name not in arrays or (here and minus not in arrays):
        continue
      values, others = arrays[name], None
      if minus and ':' in minus:
        other, minus_name = minus.split(':')
        others = self.runs(other, shift).get(seed)
        if others is None:
          continue
        others = others[minus_name]
      elif minus:
        others = arrays[minus]
      if others is not None:
        count = min(len(values), len(others))
        values = values[:count] - others[:count]
      rows.append((values, arrays['family']))
    # All seeds meet the same episodes in the same order.
    count = min((len(values) for values, _ in rows), default=0)
    rows = [(values[:count], families[:count]) for values, families in rows]
    if family:
      number = shifts.family_index(family)
      rows = [(values[of == number], of) for values, of in rows]
    return np.array([values for values, _ in rows])

  def cell(self, *args, signed=False, **options):
    """'12.3 +- 0.4', or nothing."""
    values = self.table(*args, **options)
    if not values.size:
      return ''
    mean, half = statistics.seeds_ci95(values)
    return f'{100 * mean:{"+" if signed else ""}.1f} +- {100 * half:.1f}'


def variants(folder):
  """Names of the runs with results, `default` first."""
  names = {
    path.parent.name.rpartition('-')[0] for path in folder.glob('*-*/eval')
  }
  return sorted(names, key=lambda name: (name != 'default', name))


def gains(results, names, chosen, against):
  """One line for each variant: adapted accuracy and gains by shift."""
  for shift in chosen:
    rows = []
    for name in names:
      cell = lambda *a, **o: results.cell(name, shift, *a, **o)
      if not cell('accuracy'):
        continue
      runs = results.runs(name, shift).values()
      adapted = all('accuracy_unadapted' in arrays for arrays in runs)
      row = [name, str(len(results.runs(name, shift)))]
      row += [cell('accuracy_unadapted') if adapted else cell('accuracy')]
      row += [cell('accuracy')] if adapted else ['']
      for minus in ('accuracy_unadapted', 'accuracy_placebo'):
        row += [cell('accuracy', minus=minus, signed=True)] if adapted else ['']
      row += [cell('ari'), cell('ari', minus='ari_unadapted', signed=True)]
      for kind in KMEANS:
        minus = f'accuracy_kmeans_{kind}'
        row.append(cell('accuracy', minus=minus, signed=True))
      for other in against:
        row.append(cell('accuracy', minus=other, signed=True))
      for extra, minus in EXTRAS.values():
        row.append(cell(extra, minus=minus, signed=True))
      rows.append(row)
    if not rows:
      continue
    print(f'### Queries under `{shift}`\n')
    print_table(
      (
        'variant',
        'seeds',
        'unadapted',
        'adapted',
        'gain',
        'over placebo',
        'ARI',
        'gain in ARI',
        *(f'over k-means {kind}' for kind in KMEANS),
        *('over ' + other.removesuffix(':accuracy') for other in against),
        *EXTRAS,
      ),
      rows,
    )


def families(results, names, chosen):
  """The gain of each variant in every single family."""
  listed = [
    (shift, family)
    for shift in chosen
    for family in dict.fromkeys(shifts.families(shift))
  ]
  rows = []
  for name in names:
    row = [name]
    for shift, family in listed:
      row.append(
        results.cell(
          name,
          shift,
          'accuracy',
          minus='accuracy_unadapted',
          family=family,
          signed=True,
        )
      )
    if any(row[1:]):
      rows.append(row)
  if not rows:
    return
  print('### Gain by family\n')
  print_table(('variant', *[f'{f} ({s})' for s, f in listed]), rows)


def overridden(results, others, name, chosen):
  """What overrides of the evaluation cost one variant, paired by episode.

  Args:
    results: without overrides.
    others: {label: `Results` with an override}.
    name: of the variant.
    chosen: shifts.
  """
  rows = []
  for shift in chosen:
    for label, other in others.items():
      row = [shift, label]
      for number in ('accuracy_unadapted', 'accuracy'):
        own = results.table(name, shift, number)
        values = other.table(name, shift, number)
        seeds = min(len(own), len(values))
        if not seeds:
          break
        count = min(own.shape[1], values.shape[1])
        change = values[:seeds, :count] - own[:seeds, :count]
        mean, half = statistics.seeds_ci95(change)
        row += [
          results.cell(name, shift, number),
          other.cell(name, shift, number),
          f'{100 * mean:+.1f} +- {100 * half:.1f}',
        ]
      else:
        rows.append([*row, str(seeds)])
  print_table(
    (
      'queries',
      'override',
      'unadapted, own',
      'with it',
      'difference',
      'adapted, own',
      'with it',
      'difference',
      'seeds',
    ),
    rows,
  )


def main():
  """Prints all tables."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--runs', default='runs/udl_grid', type=pathlib.Path)
  parser.add_argument('--split', default='valid')
  parser.add_argument('--proportions', default='dirichlet')
  parser.add_argument('--shifts', default='none,training,adaptation,shear')
  parser.add_argument('--variants', default='')
  parser.add_argument('--seeds', default='', help='all that there are if empty')
  parser.add_argument(
    '--against',
    default='longer_base:accuracy,default:accuracy',
    help='VARIANT:NUMBER, commas between: paired differences to these',
  )
  parser.add_argument(
    '--overrides',
    default='',
    help='ends of tags like emit_frommean: what they cost one variant, alone',
  )
  arguments = parser.parse_args()
  seeds = [s for s in arguments.seeds.split(',') if s]
  found = lambda tag: Results(arguments.runs, arguments.split, tag, seeds)
  results = found(arguments.proportions)
  names = [n for n in arguments.variants.split(',') if n]
  names = names or variants(arguments.runs)
  chosen = arguments.shifts.split(',')
  if arguments.overrides:
    others = {
      text: found(f'{arguments.proportions}-{text}')
      for text in arguments.overrides.split(',')
    }
    for name in names:
      overridden(results, others, name, chosen)
    return
  against = [text for text in arguments.against.split(',') if text]
  gains(results, names, chosen, against)
  families(results, names, [s for s in chosen if len(shifts.families(s)) > 1])


if __name__ == '__main__':
  main()
