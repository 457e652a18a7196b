"""Checks `core.distributed`; run by each of two processes at the same time."""

import jax
import numpy as np

from hyperudl import core
from hyperudl.core import distributed


def caught(call, *arguments):
  """Return exit code and message of the error of a call, None without one."""
  try:
    call(*arguments)
  except core.Error as error:
    return error.exit_code, str(error)
  return None


def check_numbers(number):
  """Check what the processes tell each other."""
  assert jax.process_count() == 2 and not distributed.is_single_process()
  assert distributed.is_primary() == (number == 0)
  assert distributed.broadcast_from_primary(number + 5) == 5
  assert distributed.max_across_processes(7 * number) == 7
  assert distributed.any_process(number == 1)
  assert not distributed.any_process([])
  assert distributed.run_on_primary(lambda: 3) == (3 if number == 0 else None)
  assert distributed.run_on_all(lambda: number) == number
  distributed.assert_equal_across_processes(2**31 - 1, 'nothing')


def check_errors(number):
  """Check that an error in one process is raised in both."""
  equal = distributed.assert_equal_across_processes
  code, message = caught(equal, number, 'seed')
  assert code == 2 and 'differ in seed' in message, message

  def refuse():
    if number == 1:
      raise core.Busy('in use')

  code, message = caught(distributed.run_on_all, refuse)
  assert code == core.Busy.exit_code
  assert (message == 'in use') == (number == 1), message
  assert caught(distributed.run_on_primary, refuse) is None


def check_arrays():
  """Check that the parts of the processes make one array."""
  mesh = jax.make_mesh((jax.device_count(),), ('episodes',))
  part = distributed.local_slice(4)
  rows = np.arange(12, dtype=np.float32).reshape(4, 3)
  keys = jax.random.split(jax.random.key(0), 4)
  tree = distributed.to_global_arrays((rows[part], keys[part]), mesh)
  assert tree[0].shape == (4, 3) and tree[1].shape == (4,)
  draw = jax.jit(jax.vmap(jax.random.uniform))
  gathered = distributed.gather_to_host((tree[0], draw(tree[1])))
  np.testing.assert_array_equal(gathered[0], rows)
  np.testing.assert_array_equal(gathered[1], draw(keys))
  columns = distributed.to_global_arrays(rows.T[:, part], mesh, axis=1)
  np.testing.assert_array_equal(distributed.gather_to_host(columns), rows.T)


if __name__ == '__main__':
  distributed.initialize()
  check_numbers(jax.process_index())
  check_errors(jax.process_index())
  check_arrays()
