"""The trainings of a results page: rows resolve, what is done, the order."""

import functools
import importlib
import pathlib
import re
import sys

import numpy as np
import pytest

from hyperudl.core import config as config_lib
from tests.testing import results

ROOT = pathlib.Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / 'launch'))

import jobs  # noqa: E402
import page_runs  # noqa: E402
import result_pages  # noqa: E402


@pytest.mark.parametrize('page', result_pages.PAGES)
def test_every_row_of_a_results_page_resolves(page, tmp_path):
  dataset = 'small' if page == 'guidance' else 'omniglot'
  arguments = results.ask(tmp_path, page, target='mnist', dataset=dataset)
  rows = page_runs.rows_of(arguments)
  for text, flags, evaluations in rows.values():
    name, _, variant = text.partition('.py:')
    module = importlib.import_module(f'configs.{name}')
    config = module.get_config(variant).unlock()
    changes = [*flags, *(f for e in evaluations.values() for f in e)]
    for field, value in re.findall(
      r'--config\.([\w.]+)=(\S+)', ' '.join(changes)
    ):
      config_lib.set_field(config, field, value)
    config_lib.validate(config)
  # What a row is compared with is trained before it.
  order = list(rows)
  for row, other in result_pages.REFERENCES[page].items():
    assert order.index(other) < order.index(row)


def test_a_finished_run_of_other_settings_is_not_taken(tmp_path, capsys):
  name = 'unlabelled-4-1layer-0'
  results.finish(tmp_path, 'semi', 'base-1layer-0', {})
  run = results.finish(tmp_path, 'semi', name, {'accuracy': np.ones(9)})
  arguments = results.ask(tmp_path, 'semi')
  page_runs.train(arguments, 'unlabelled-4-1layer', 0)
  text = (run / 'config.json').read_text()
  base = f'{tmp_path}/semi/omniglot/base-1layer-0'
  # The same network, moved.
  (run / 'config.json').write_text(text.replace(base, '/data/base-1layer-0'))
  page_runs.train(arguments, 'unlabelled-4-1layer', 0)
  for old, new, word in (
    ('3000', '60', 'steps: 60 -> 3000'),
    (base, '', "init_from.shared: '' -> "),
  ):
    (run / 'config.json').write_text(text.replace(old, new))
    with pytest.raises(SystemExit) as stopped:
      page_runs.train(arguments, 'unlabelled-4-1layer', 0)
    assert stopped.value.code == 2
    assert word in capsys.readouterr().err


def test_several_at_a_time_first_what_most_wait_for(tmp_path):
  rows = ['contrastive', 'multitask', 'hypernet', 'hvae', 'hyperclip-hvae']
  arguments = results.ask(tmp_path, 'guidance', dataset='glyphvqa', rows=rows)
  arguments.seeds, arguments.jobs = [1, 0], 2

  def order():
    begun, tasks = [], page_runs.tasks_of(arguments, {})
    for name, task in tasks.items():
      work = functools.partial(begun.append, name)
      tasks[name] = task._replace(work=work)
    jobs.run(tasks, 1)
    return [(row, seed, *result[:1]) for row, seed, *result in begun]

  found = order()
  trained = [name for name in found if len(name) == 2]
  chain = ['contrastive', 'hypernet', 'hvae', 'multitask', 'hyperclip-hvae']
  assert trained == [(row, seed) for seed in (1, 0) for row in chain]
  # What others build on, then row by row; the next seed after all of them.
  assert found[:3] == trained[:3]
  assert found[3:5] == [
    ('contrastive', 1, 'wording-test'),
    ('contrastive', 1, 'semantic-test'),
  ]
  assert found.index(('hyperclip-hvae', 1, 'wording-test')) < found.index(
    ('contrastive', 0)
  )
  arguments.jobs = 1
  found = order()
  assert found[0] == ('contrastive', 1)
  assert found[1] == ('contrastive', 1, 'wording-test')
  assert found.index(('hyperclip-hvae', 1, 'wording-test')) < found.index(
    ('contrastive', 0)
  )


def test_each_row_has_its_number_of_seeds(tmp_path):
  rows = ['protonet-5way', 'protonet-20way', 'protonet-dot-fixed']
  arguments = results.ask(tmp_path, 'metric', rows=rows, seeds=[])
  assert page_runs.order(arguments) == [
    *((0, row) for row in rows),
    *((seed, 'protonet-20way') for seed in (1, 2)),
  ]
  arguments.seeds = [4]
  assert page_runs.order(arguments) == [(4, row) for row in rows]
  for page, counts in result_pages.SEEDS.items():
    assert set(counts) <= set(result_pages.PAGES[page]())
