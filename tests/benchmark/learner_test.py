"""Rows of one configuration: drawing, updates, evaluation, and parts.

Guards: benchmark/hypertransformer_parts.py.
"""

import json
import math
import re

import pytest

from configs import hypertransformer as hypertransformer_config
from configs import protonet as protonet_config
from hyperudl.benchmark import learner as benchmark_learner
from hyperudl.benchmark import timing
from tests.testing import runs
from tests.testing import tiny_sizes


def lines_of(module, name, batches, calls=(1,)):
  config = module.get_config('tiny,way=2,query=2,batch=2').unlock()
  config.data.dir = str(runs.data_dir())
  config.data.augment = 'none'
  config.eval.batch = 2
  config.learner.update(tiny_sizes.TINY[name])
  rows = benchmark_learner.rows(config, batches, calls)
  # Two calls a row: quick, and no claim is made of the numbers.
  return timing.measure(rows, 2, matmul=64, seconds=0.0)


@pytest.mark.slow
def test_rows_of_any_learner_are_drawing_updates_and_evaluation():
  lines = lines_of(protonet_config, 'protonet', [1, 2], [1, 3])
  names = [line['name'] for line in lines]
  assert names == [
    *('draw 1', 'update 1', 'update 1 x 3'),
    *('draw 2', 'update 2', 'update 2 x 3'),
    *('evaluate 2', 'answer 1'),
  ]
  for line in lines:
    assert line['config'] == 'protonet on tiny, 2-way 1-shot'
    assert json.loads(json.dumps(line)) == line
    each = line['ms_per_call'] / 1000 * line['episodes_per_second']
    size = math.prod(map(int, re.findall(r'\d+', line['name'])))
    assert abs(each - size) < 0.05 * size
    assert line['peak_rss_mb'] > 50
    drawing = line['name'].startswith('draw')
    update = line['name'].startswith('update')
    assert bool(line['temporary_mb']) == update
    assert line['gflops'] is None if drawing else line['share_of_peak'] >= 0
  shares = {line['name']: line['share'] for line in lines}
  assert shares['update 1'] == 1.0


@pytest.mark.slow
def test_parts_of_a_hypertransformer_are_rows():
  lines = lines_of(hypertransformer_config, 'hypertransformer', [1])
  parts = {line['name'] for line in lines if line['name'].startswith('part')}
  names = ('layer features', 'encoders', 'cnn', 'shared features')
  assert parts == {f'part {name}' for name in names}
  assert all(line['ms_per_call'] > 0 for line in lines)
