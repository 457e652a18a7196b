"""The types that describe a results page: the page, its rows, their flags.

A page is a set of rows. A row is one training, repeated with several seeds, and
its evaluations. Flags and names may contain `{dataset}`, `{target}` and, for a
training, `{folder}/ROW-{seed}`: the run of another row, trained before it.
"""

from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import re
from typing import NamedTuple


class Row(NamedTuple):
  """One line of a results page: a training and its evaluations."""

  config: str  # file in `configs/` and its variant: 'maml.py:{dataset},way=5'
  flags: Sequence[str] = ()  # of the training
  # Name of a result, as in `eval/NAME.jsonl` -> flags of `hyperudl.evaluate`.
  evaluations: Mapping[str, Sequence[str]] = {}
  seeds: int = 1  # number of training seeds
  reference: str = ''  # row whose accuracy is subtracted, episode by episode


@dataclasses.dataclass(frozen=True)
class Page:
  """A results page: its rows and how its tables are laid out."""

  rows: Mapping[str, Row]
  folder: str = ''  # of the runs; empty: the name of the page
  # Number of an evaluation -> title, for a second table. A number may be a
  # paired difference: see `Operand`.
  scores: Mapping[str, str] = dataclasses.field(default_factory=dict)
  # More numbers with their titles, for a third table.
  details: Mapping[str, str] = dataclasses.field(default_factory=dict)
  # Title of a column of the second table -> differences of which it shows the
  # smallest: against the best of several references.
  smallest: Mapping[str, Sequence[str]] = dataclasses.field(
    default_factory=dict
  )
  scored: str = ''  # only results with this word are in the second table
  both: bool = False  # whether these results are in the first table too
  by_result: bool = False  # whether to sort the second table by result
  # Results are named SETTING-COLUMN; the first table has a line per setting.
  columns: Sequence[str] = ()
  families: bool = False  # whether to add a table of gains by family of shifts
  retired: bool = False  # its learner was removed: printed but not trained

  def column_of(self, result: str) -> str:
    """Return the column that a result is in, by default its own name."""
    ends = [each for each in self.columns if result.endswith(each)]
    return ends[0] if ends else result

  def results(self) -> list[str]:
    """Return the names of all results, in the order of the rows."""
    return list(
      dict.fromkeys(n for row in self.rows.values() for n in row.evaluations)
    )

  def differences(self, row: str) -> list[str]:
    """Return the paired differences that a record of the row holds."""
    names = [name for name in self.scores if ' - ' in name]
    if self.rows[row].reference:
      names.append(difference(self.rows[row].reference))
    return names


class Operand(NamedTuple):
  """What a paired difference subtracts: `NUMBER` or `ROW:NUMBER`.

  `accuracy - accuracy_unadapted` subtracts two numbers of one evaluation;
  `accuracy - maml:accuracy` subtracts the accuracy of another row with the same
  seed, on the same episodes, in the same column of the table.
  """

  row: str  # empty: the same row
  number: str


def difference(row: str) -> str:
  """Return the name of the paired difference in accuracy to another row."""
  return f'accuracy - {row}:accuracy'


def parse(score: str) -> tuple[str, Operand | None]:
  """Return the number of a score, and what is subtracted from it or None."""
  number, _, other = score.partition(' - ')
  row, colon, name = other.rpartition(':')
  return number, Operand(row if colon else '', name) if other else None


def upstream(name: str, row: str = '') -> str:
  """Return the flag by which a training starts from the run of a row."""
  return f'--config.init_from.{name}={{folder}}/{row or name}-{{seed}}'


def upstream_rows(row: Row) -> list[str]:
  """Return the rows whose runs a training starts from."""
  text = ' '.join(row.flags)
  return re.findall(r'{folder}/([\w-]+)-{seed}(?= |$)', text)


def overrides(**fields: object) -> list[str]:
  """Return flags that set hyperparameters of the learner."""
  return [f'--config.learner.{name}={value}' for name, value in fields.items()]


def test(
  *flags: str, tag: str = '', episodes: int = 1000, split: str = 'test'
) -> dict[str, list[str]]:
  """Return one evaluation, `TAG-SPLIT` or, without a tag, `SPLIT`."""
  name = [f'--tag={tag}'] if tag else []
  base = [f'--split={split}', f'--episodes={episodes}']
  return {f'{tag}-{split}' if tag else split: [*base, *flags, *name]}


def merged(parts: Iterable[Mapping[str, Sequence[str]]]) -> dict:
  """Return several evaluations as one mapping."""
  return {name: flags for part in parts for name, flags in part.items()}


def fill(page: Page, dataset: str, target: str) -> Page:
  """Return the page with the names of data sets in place of their braces.

  Args:
    page: one of `pages.PAGES`.
    dataset: name of a set and, after a comma, more of a config's variant.
    target: name of a second set to test on; if it is empty, evaluations that
      need it are left out.
  """
  names = {'dataset': dataset, 'target': target}
  rows = {
    name: row._replace(
      config=row.config.format(**names),
      evaluations={
        result.format(**names): [flag.format(**names) for flag in flags]
        for result, flags in row.evaluations.items()
        if target or '{target}' not in result
      },
    )
    for name, row in page.rows.items()
  }
  return dataclasses.replace(page, rows=rows)
