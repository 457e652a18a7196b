"""Ratios of our speed to that of torch; no torch is needed."""

import statistics

from experiments.peers import compare


def test_ratios_are_to_the_best_torch_program_of_the_row():
  measured = {
    ('a', 'hyperudl'): (4, [1.0, 2.0, 4.0]),
    ('a', 'torch loop'): (4, [2.0, 6.0, 4.0]),
    ('a', 'torch vmap'): (4, [9.0, 9.0, 9.0]),
    ('b', 'hyperudl'): (2, [1.0, 1.0, 1.0]),
  }
  lines = compare.describe(measured)
  assert [line['to_best_torch'] for line in lines] == [2.0, 1.0, 0.444, None]
  assert lines[0]['episodes_per_second'] == 4 / statistics.median([1, 2, 4])
