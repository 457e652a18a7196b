"""Evaluates a checkpoint under several overrides in one process."""

from collections.abc import Iterator
from collections.abc import Mapping
import contextlib
import shlex
from typing import Any

from absl import logging

from hyperudl import core
from hyperudl.core import cli
from hyperudl.core import distributed
from hyperudl.evaluation import evaluator
from hyperudl.evaluation import resources as resources_lib
from hyperudl.evaluation import runner
from hyperudl.evaluation import uncertainty
from hyperudl.storage import metrics
from hyperudl.storage.filesystem import StrPath


def read(path: StrPath) -> dict[str, list[str]]:
  """Return the arguments of each line of a file, by its place 'FILE:LINE'.

  Args:
    path: each line holds the flags of one evaluation as on a command line, with
      its quotes; empty lines and what follows a # are ignored.

  Raises:
    core.BadInput: the file cannot be read, a quote is not closed, or there is
      no line.
  """
  try:
    with open(path, encoding='utf-8') as file:
      lines = file.read().splitlines()
  except (OSError, UnicodeDecodeError) as error:
    raise core.BadInput(
      f'--overrides={path} cannot be read ({error}): name a file with the '
      'flags of one evaluation in each line'
    ) from error
  arguments = {}
  for number, line in enumerate(lines, 1):
    with at(f'{path}:{number}'):
      try:
        words = shlex.split(line, comments=True)
      except ValueError as error:
        raise core.BadInput(f'{error} in {line!r}') from error
    if words:
      arguments[f'{path}:{number}'] = words
  if not arguments:
    raise core.BadInput(
      f'--overrides={path} is empty: write the flags of one evaluation in each '
      'line'
    )
  return arguments


@contextlib.contextmanager
def at(place: str) -> Iterator[None]:
  """Begin the message of an error with its place; '' changes nothing."""
  try:
    yield
  except core.Error as error:
    if not place:
      raise
    raise type(error)(f'{place}: {error}') from error


def evaluate_all(
  workdir: StrPath,
  requests: Mapping[str, runner.Request],
  stop: Any = (),
) -> None:
  """Evaluate requests one after another; all are checked before the first.

  Each gives the result that it would give alone. One that fails is named, and
  the others are evaluated all the same.

  Args:
    workdir: of the run.
    requests: by the place in which each was asked for, as in `at`.
    stop: becomes true when the evaluation should end.

  Raises:
    core.BadInput: two have one name, or one cannot be met; nothing has been
      computed.
    core.Error: the first failure, after all others have been evaluated.
  """
  resources = resources_lib.Resources()
  places: dict[str, str] = {}
  for place, request in requests.items():
    with at(place):
      if other := places.get(request.name):
        raise core.BadInput(
          f'its result {request.name!r} is also that of {other}: give it '
          'another --tag=NAME'
        )
      _check(workdir, request, resources)
    places[request.name] = place
  failures = []
  for place, request in requests.items():
    try:
      with at(place):
        if _evaluate(workdir, request, stop, resources) is None:
          return
    except (core.BadInput, core.Unreadable, core.OutOfMemory) as error:
      failures.append(error)
      if len(requests) > 1:
        logging.error('%s', error)
  if failures:
    raise failures[0]


def _check(workdir, request, resources):
  """Raise BadInput for a request that cannot be met, as far as is known."""
  metrics.evaluation_path(workdir, request.name)
  if request.uncertainty:
    uncertainty.check_request(workdir, request)
  config, split = request.config, request.split
  distributed.run_on_all(
    lambda: evaluator.Evaluator(config, split, config.eval.episodes, resources)
  )


def _evaluate(workdir, request, stop, resources):
  """Evaluate one request; return its row, or None if it was stopped."""
  module = uncertainty if request.uncertainty else runner
  try:
    with distributed.translate_peer_loss():
      return module.evaluate_once(workdir, request, stop, resources)
  except RuntimeError as error:
    if out_of_memory := cli.as_out_of_memory(error):
      raise out_of_memory from error
    raise
