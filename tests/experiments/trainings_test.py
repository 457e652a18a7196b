"""The trainings of a results page: their configs, order and folders."""

import numpy as np
import pytest

from configs import mt3
from configs import udl as udl_config
from experiments import page as page_lib
from experiments import pages
from experiments import trainings
from hyperudl import core
from hyperudl import learners
from hyperudl.core import config as config_lib
from hyperudl.storage import filesystem
from tests.testing import results

TRAINED = [name for name, page in pages.PAGES.items() if not page.retired]


@pytest.mark.parametrize('page', TRAINED)
def test_every_row_of_a_results_page_is_a_legal_training(page, tmp_path):
  dataset = 'small' if page == 'guidance' else 'omniglot'
  flags = [f'--dataset={dataset}', '--target=mnist']
  options = results.arguments(tmp_path, page, *flags)
  filled = trainings.page_of(options)
  for name, row in filled.rows.items():
    config = trainings.config_of(options, name, 0).unlock()
    check(config)
    for evaluation in row.evaluations.values():
      changed = config.copy_and_resolve_references()
      for flag in evaluation:
        if flag.startswith('--config.'):
          field, _, value = flag.removeprefix('--config.').partition('=')
          config_lib.set_field(changed, field, value)
      check(changed)
  # What a row is compared with and starts from is trained before it.
  order = list(filled.rows)
  for name, row in filled.rows.items():
    scores = filled.differences(name)
    others = {page_lib.parse(score)[1].row for score in scores} - {''}
    assert others <= set(order)
    for other in page_lib.upstream_rows(row):
      assert order.index(other) < order.index(name)


def check(config):
  """Holds a config to what `hyperudl.train` asks of it."""
  config_lib.validate(config)
  learners.check_run(config)
  learners.make(
    config.learner.name,
    config.episode.way,
    config_lib.learner_settings(config),
  )


@pytest.mark.parametrize('page', [p for p in TRAINED if p.startswith('udl')])
def test_every_variant_of_udl_changes_something(page, tmp_path):
  options = results.arguments(tmp_path, page)
  configs = {}
  for row in trainings.page_of(options).rows:
    config = trainings.config_of(options, row, 0)
    configs[row] = config.to_json_best_effort()
  assert len(set(configs.values())) == len(configs)


@pytest.mark.parametrize(
  'arg, dataset, meta_grad',
  [
    (None, 'cifar10', 'full'),
    ('cifar_fs,way=3', 'cifar_fs', 'full'),
    ('joint', 'cifar10', 'none'),
    ('joint,cifar_fs', 'cifar_fs', 'none'),
  ],
)
def test_mt3_and_its_control_differ_in_the_outer_gradient_alone(
  arg, dataset, meta_grad
):
  config = mt3.get_config(arg)
  check(config)
  assert config.data.dataset == dataset
  assert config.data.shift == 'color_training'
  elsewhere = mt3.get_config('cifar10,shift=fog')
  assert elsewhere.data.shift == 'fog'
  plain = config_lib.learner_settings(mt3.get_config())
  different = {
    name
    for name, value in config_lib.learner_settings(config).items()
    if value != plain[name]
  }
  assert different == ({'meta_grad'} if meta_grad == 'none' else set())


def test_a_run_of_other_settings_is_named_kept_and_trained_again(
  tmp_path, warnings, monkeypatch
):
  name = 'unlabelled-4-1layer'
  options = results.arguments(tmp_path, 'semi', f'--rows={name}')
  results.finish(options, 'base-1layer-0', {})
  run = results.finish(options, f'{name}-0', {'accuracy': np.ones(9)})
  text = (run / 'config.json').read_text()
  base = f'{tmp_path}/semi/omniglot/base-1layer-0'
  # The same network, moved.
  (run / 'config.json').write_text(text.replace(base, '/data/base-1layer-0'))
  monkeypatch.setattr(trainings, 'call', None)  # nothing is run
  trainings.jobs_of(options, {})[name, 0].work()
  assert not warnings
  for number, (old, new, word) in enumerate(
    (
      ('3000', '60', 'steps: 60 -> 3000'),
      (base, '', "init_from.shared: '' -> "),
    ),
    1,
  ):
    results.finish(options, f'{name}-0', {'accuracy': np.ones(9)})
    (run / 'config.json').write_text(text.replace(old, new))
    todo = trainings.jobs_of(options, {})
    assert any('stale: ' in line and word in line for line in warnings)
    assert not run.exists()
    assert (run.with_name(f'{name}-0.stale-{number}') / 'DONE').exists()
    with pytest.raises(TypeError):  # it would train
      todo[name, 0].work()


def test_runs_that_start_from_a_stale_one_are_trained_again(tmp_path, warnings):
  options = results.arguments(tmp_path, 'udl-few-shot')
  runs = {
    row: results.finish(options, f'{row}-0', {})
    for row in ('vae', 'base', 'default')
  }
  other = results.finish(
    results.arguments(tmp_path, 'udl-few-shot', '--seeds=1'), 'vae-1', {}
  )
  text = (runs['vae'] / 'config.json').read_text()
  (runs['vae'] / 'config.json').write_text(text.replace('3000', '60'))
  trainings.jobs_of(options, {})
  assert not any(run.exists() for run in runs.values())
  assert other.exists()
  assert any('base-0: it starts from vae-0' in line for line in warnings)
  assert any('default-0: it starts from base-0' in line for line in warnings)
  # At the second time there is nothing to set aside.
  warnings.clear()
  trainings.jobs_of(options, {})
  assert not warnings


def test_a_stale_run_that_is_being_trained_is_left_alone(tmp_path):
  options = results.arguments(tmp_path, 'udl-few-shot')
  run = results.finish(options, 'vae-0', {})
  text = (run / 'config.json').read_text()
  (run / 'config.json').write_text(text.replace('3000', '60'))
  with filesystem.acquire_lock(run), pytest.raises(core.Busy, match='in use'):
    trainings.jobs_of(options, {})
  assert run.exists()


def test_a_stale_evaluation_is_made_again(tmp_path, monkeypatch, warnings):
  name = 'base-1layer'
  options = results.arguments(tmp_path, 'semi', f'--rows={name}')
  values = {'accuracy': np.ones(9)}
  results.finish(options, f'{name}-0', values)
  calls = []
  monkeypatch.setattr(trainings, 'call', lambda *flags: calls.append(flags[0]))
  job = trainings.jobs_of(options, {})[name, 0, trainings.EVALUATIONS]
  job.work()
  assert not calls
  results.finish(options, f'{name}-0', values, split='valid')
  job.work()
  assert calls == ['evaluate']
  assert any('split: valid -> test' in line for line in warnings)


def test_each_row_has_its_number_of_seeds(tmp_path):
  rows = ['protonet-5way', 'protonet-20way', 'protonet-dot-fixed']
  chosen = f'--rows={",".join(rows)}'
  options = results.arguments(tmp_path, 'metric', chosen)
  assert trainings.order(options) == [
    *((0, row) for row in rows),
    *((seed, 'protonet-20way') for seed in (1, 2)),
  ]
  options = results.arguments(tmp_path, 'metric', chosen, '--seeds=4')
  assert trainings.order(options) == [(4, row) for row in rows]


def test_a_row_is_evaluated_once_it_is_trained(tmp_path):
  flags = ['--dataset=glyphvqa', '--rows=hyperldm-hvae,multitask', '--seeds=1']
  options = results.arguments(tmp_path, 'guidance', *flags)
  todo = trainings.jobs_of(options, {})
  assert [name for name in todo if len(name) == 2] == [
    (row, 1)
    for row in ('contrastive', 'hypernet', 'hvae', 'hyperldm-hvae', 'multitask')
  ]
  assert todo['hvae', 1].needs == {('hypernet', 1)}
  assert todo['hyperldm-hvae', 1].needs == {('hypernet', 1), ('hvae', 1)}
  last = todo['multitask', 1, trainings.EVALUATIONS]
  assert last.needs == {('multitask', 1)}


def test_pages_of_udl_share_their_runs(tmp_path):
  folders = {
    page: trainings.folder(results.arguments(tmp_path, page))
    for page in ('udl', 'udl-others', 'udl-ablations', 'udl-layer')
  }
  assert folders['udl'] == folders['udl-others'] == folders['udl-ablations']
  assert folders['udl'] != folders['udl-layer']
  configs = {}
  for name, page in pages.PAGES.items():
    for row in page.rows if page.folder else ():
      options = results.arguments(tmp_path, name)
      config = trainings.config_of(options, row, 0).to_json_best_effort()
      place = trainings.folder(options), row
      assert configs.setdefault(place, config) == config, (name, row)


def test_the_checksum_of_a_config_follows_its_file_not_seeds_or_folders(
  tmp_path, monkeypatch
):
  options = results.arguments(tmp_path, 'udl')
  before = trainings.checksum(options, 'default')
  assert before != trainings.checksum(options, 'cluster_alone')
  options.runs, options.data_dir = tmp_path / 'moved', 'elsewhere'
  assert trainings.checksum(options, 'default') == before
  make = udl_config.get_config

  def with_other_steps(arg):
    config = make(arg)
    config.learner.inner_steps = 5
    return config

  monkeypatch.setattr(udl_config, 'get_config', with_other_steps)
  assert trainings.checksum(options, 'default') != before
