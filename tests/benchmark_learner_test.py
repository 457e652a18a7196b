"""The benchmark of one configuration runs and tells its parts apart."""

import json
import math
import re

import pytest

from configs import hypertransformer as hypertransformer_config
from configs import protonet as protonet_config
from hyperudl import benchmark_learner
from tests import runs_helper as runs
from tests import sizes_helper


def lines_of(module, name, batches, calls=(1,)):
  config = module.get_config('tiny,way=2,query=2,batch=2').unlock()
  config.data.dir = str(runs.home())
  config.data.augment = 'none'
  config.eval.batch = 2
  config.learner.update(sizes_helper.TINY[name])
  rows, episode, learner = benchmark_learner.updates(config, batches, calls)
  if name == 'hypertransformer':
    rows.update(
      benchmark_learner.hypertransformer_parts(config, episode, learner)
    )
  # Two calls a row: quick, and no claim is made of the numbers.
  return benchmark_learner.measure(rows, 2, matmul=64, seconds=0.0)


def test_rows_of_any_learner_are_drawing_updates_and_evaluation():
  lines = lines_of(protonet_config, 'protonet', [1, 2], [1, 3])
  names = [line['name'] for line in lines]
  assert names == [
    *('draw 1', 'update 1', 'update 1 x 3'),
    *('draw 2', 'update 2', 'update 2 x 3'),
    *('evaluate 2', 'answer 1'),
  ]
  for line in lines:
    assert json.loads(json.dumps(line)) == line
    each = line['ms_per_call'] / 1000 * line['episodes_per_second']
    size = math.prod(map(int, re.findall(r'\d+', line['name'])))
    assert abs(each - size) < 0.05 * size
    assert line['peak_rss_mb'] > 50
  shares = {line['name']: line['share'] for line in lines}
  assert shares['update 1'] == 1.0


@pytest.mark.slow
def test_the_hypertransformer_has_parts():
  lines = lines_of(hypertransformer_config, 'hypertransformer', [1])
  parts = {line['name'] for line in lines if line['name'].startswith('part')}
  names = ('layer features', 'encoders', 'cnn', 'shared features')
  assert parts == {f'part {name}' for name in names}
  assert all(line['ms_per_call'] > 0 for line in lines)
