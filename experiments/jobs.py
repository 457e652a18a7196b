"""Runs jobs that wait for one another, one at a time."""

from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Hashable
from collections.abc import Mapping
import graphlib
import subprocess
from typing import NamedTuple


class Job(NamedTuple):
  """Something to do once other jobs are done."""

  work: Callable[[], None]
  needs: Collection = ()  # names of other jobs


def run(jobs: Mapping[Hashable, Job], done: Callable[[Hashable], None]) -> None:
  """Run all jobs; of those that may begin the first one does.

  Args:
    jobs: name -> job, in the order in which they are wanted; what a job needs
      is among them.
    done: called with the name of each job that has ended.

  Raises:
    graphlib.CycleError: jobs wait for one another.
  """
  graph = {name: job.needs for name, job in jobs.items()}
  sorter = graphlib.TopologicalSorter(graph)
  sorter.prepare()
  order = {name: place for place, name in enumerate(jobs)}
  ready = set(sorter.get_ready())
  while ready:
    name = min(ready, key=order.__getitem__)
    jobs[name].work()
    done(name)
    sorter.done(name)
    ready = ready - {name} | set(sorter.get_ready())


def call(command: list[str]) -> int:
  """Return the exit code of a command, which ends where this process does."""
  with subprocess.Popen(command) as child:
    try:
      return child.wait()
    except BaseException:
      child.terminate()
      raise
