"""What the laws of all learners assume of one, as its test file states it."""

import dataclasses
import importlib
import pathlib


@dataclasses.dataclass(frozen=True)
class Laws:
  """Conditions of the laws for one learner; the defaults hold for most.

  The test file of a learner states what differs, `LAWS = {name: Laws(...)}`;
  the run of the laws prints it.
  """

  # Why what trains it, or compares strategies of many episodes, is marked slow.
  slow: str = ''
  # Why it need not beat its untrained self and a constant prediction.
  untrained: str = ''
  # Why its evaluation need not report `probabilities` as `predict` has them.
  unjudged: str = ''
  tasks: int = 0  # of an episode
  learning_rate: float = 0.01
  steps: int = 100  # after which it must beat them
  image_size: int = 14  # pixels a side
  reason: str = ''  # why any of these numbers differs

  def stated(self) -> str:
    """Return what differs from the defaults, in words."""
    default = Laws()
    return '; '.join(
      f'{field.name} = {getattr(self, field.name)}'
      for field in dataclasses.fields(self)
      if getattr(self, field.name) != getattr(default, field.name)
    )


def read() -> dict[str, Laws]:
  """Return what test files of learners state as `LAWS`, by learner."""
  tests = pathlib.Path(__file__).parents[1]
  laws = {}
  for path in sorted((tests / 'learners').rglob('*_test.py')):
    if '\nLAWS = ' in path.read_text():
      parts = path.relative_to(tests.parent).with_suffix('').parts
      laws |= importlib.import_module('.'.join(parts)).LAWS
  return laws
