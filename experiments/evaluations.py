"""Tells whether a stored evaluation is the one that a results page asks for."""

from collections.abc import Sequence
import json
import pathlib
from typing import Any

from hyperudl.evaluation import runner
from hyperudl.storage import metrics
from hyperudl.training import setup

_NUMBERS = ('way', 'shot', 'episodes')
# Fields of a result line that say how it was measured.
_PROVENANCE = ('split', 'checkpoint', 'overrides')


def read_line(workdir: pathlib.Path, name: str) -> dict[str, Any] | None:
  """Return the last line of `eval/NAME.jsonl`; None without one."""
  lines = metrics.read_jsonl(workdir / 'eval' / f'{name}.jsonl')
  return lines[-1] if lines else None


def wanted(workdir: pathlib.Path, flags: Sequence[str]) -> dict[str, Any]:
  """Return the provenance of the line that an evaluation would write.

  Args:
    workdir: of the run.
    flags: of `hyperudl.evaluate`.
  """
  options: dict[str, Any] = {'split': 'test', 'step': 'latest'}
  changes = {}
  for flag in flags:
    name, _, text = flag.removeprefix('--').partition('=')
    if name.startswith('config.'):
      changes[name.removeprefix('config.')] = text
    else:
      options[name] = int(text) if name in _NUMBERS else text
  config, _ = runner.override(setup.read_config(workdir), changes, options)
  return runner.provenance(workdir, config, options['step'], options['split'])


def stale(workdir: pathlib.Path, name: str, flags: Sequence[str]) -> str:
  """Return in words how a stored result differs from what is asked for.

  Empty where it does not, or where there is none. Data folder and size of a
  batch change no result.

  Args:
    workdir: of the run.
    name: of the result.
    flags: of `hyperudl.evaluate`.
  """
  line = read_line(workdir, name)
  if line is None:
    return ''
  if any(field not in line for field in _PROVENANCE):
    return 'it does not say what it was measured with'
  # As JSON has it: a tuple is a list there.
  asked = json.loads(json.dumps(wanted(workdir, flags)))
  differences = []
  for field in _PROVENANCE[:2]:
    if line[field] != asked[field]:
      differences.append(f'{field}: {line[field]} -> {asked[field]}')
  for field in sorted({*line['overrides'], *asked['overrides']}):
    before = line['overrides'].get(field, "the run's")
    after = asked['overrides'].get(field, "the run's")
    if before != after:
      differences.append(f'{field}: {before} -> {after}')
  return ', '.join(differences)
