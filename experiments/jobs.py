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
  """Run all jobs, one at a time; of those that are ready, the first in order.

  Args:
    jobs: name -> job, in the preferred order; the jobs that one needs must be
      among them.
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
  """Run a command and return its exit code; it is ended with this process."""
  with subprocess.Popen(command) as child:
    try:
      return child.wait()
    except BaseException:
      child.terminate()
      raise
