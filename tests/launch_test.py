"""Scripts and help: what they name exists, and every config resolves."""

import importlib
import pathlib
import re
import shlex
import subprocess
import sys
import types

import numpy as np
import pytest

from hyperudl import config as config_lib
from hyperudl import metrics
from hyperudl import stats
from tests import runs_helper as runs

ROOT = pathlib.Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / 'launch'))

import results  # noqa: E402

SCRIPTS = sorted((ROOT / 'launch').glob('*.sh'))
MAINS = [
  name
  for name in (
    'train',
    'evaluate',
    'plots',
    'benchmark',
    'benchmark_learner',
    'precompute',
    'encode',
    'data.convert',
  )
  if (ROOT / 'hyperudl' / f'{name.replace(".", "/")}.py').exists()
]
CONFIG = r'configs/(\w+)\.py(?::([\w,=.+-]+))?'


def read(path):
  """The text of a script with continued lines joined, without comments."""
  text = path.read_text().replace('\\\n', ' ')
  text = re.sub(r'\$\{(?:DATASET|METHOD):-(\w+)\}', r'\1', text)
  return '\n'.join(line for line in text.splitlines() if line[:1] != '#')


def resolve(name, variant):
  module = importlib.import_module(f'configs.{name}')
  return module.get_config(variant or None)


@pytest.mark.parametrize('path', SCRIPTS, ids=lambda path: path.name)
def test_a_script_is_legal_and_its_commands_exist(path):
  subprocess.run(['bash', '-n', path], check=True)
  for module in re.findall(r'python3? -m (hyperudl[\w.]*)', path.read_text()):
    file = ROOT / f'{module.replace(".", "/")}.py'
    assert file.exists(), module
  for file in re.findall(r'launch/[\w.]+\.(?:sh|py)', path.read_text()):
    assert (ROOT / file).exists(), file


@pytest.mark.parametrize('path', SCRIPTS, ids=lambda path: path.name)
def test_every_config_of_a_script_resolves(path):
  for command in read(path).splitlines():
    found = re.search(r'--config="?' + CONFIG, command)
    if not found:
      continue
    config = resolve(*found.groups()).unlock()
    for field, text in re.findall(r'--config\.([\w.]+)=(\S+)', command):
      set_field(config, field, shlex.split(text)[0])
    config_lib.validate(config)


def test_a_setting_names_its_config_before_changes_of_it(tmp_path):
  # Mains refuse --config.a.b=c before --config=....
  code = (
    'source launch/setup.sh; make_environment() { :; }; wait() { :; }; '
    f'python() {{ echo "$@" >> {tmp_path}/calls; }}; '
    'run_setting --config=configs/maml.py --config.steps=3'
  )
  subprocess.run(['bash', '-c', code, 'name.sh'], check=True, cwd=ROOT)
  calls = (tmp_path / 'calls').read_text().splitlines()
  (training,) = [call for call in calls if 'hyperudl.train' in call]
  order = [training.index(f'--config{end}') for end in ('=', '.data', '.steps')]
  assert order == sorted(order)


@pytest.mark.parametrize('path', SCRIPTS, ids=lambda path: path.name)
def test_a_script_gives_its_config_first(path):
  for line in read(path).splitlines():
    called = re.match(r'\s*run_(setting|across)\b', line)
    if called and '()' not in line:
      assert re.match(r'\s*run_(setting|across \S+ \w+)\s+--config=', line)


@pytest.mark.parametrize(
  'page', ['gradient', 'metric', 'hypertransformer', 'semi', 'continual']
)
def test_every_row_of_a_results_page_resolves(page):
  arguments = types.SimpleNamespace(
    page=page, dataset='omniglot', target='mnist'
  )
  for text, flags, evaluations in results.rows_of(arguments).values():
    name, _, variant = text.partition('.py:')
    config = resolve(name, variant).unlock()
    changes = [*flags, *(f for e in evaluations.values() for f in e)]
    for field, value in re.findall(
      r'--config\.([\w.]+)=(\S+)', ' '.join(changes)
    ):
      config_lib.set_field(config, field, value)
    config_lib.validate(config)


def test_a_results_page_holds_what_there_is(tmp_path):
  for seed, right in (('0', 0.5), ('1', 0.7)):
    run = tmp_path / 'gradient' / 'omniglot' / f'maml-{seed}'
    run.mkdir(parents=True)
    (run / 'DONE').touch()
    (run / 'train.jsonl').write_text(
      '{"step": 60, "steps_per_second": 1}\n'
      '{"step": 180, "steps_per_second": 2}\n'
    )
    row = {'accuracy': right, 'accuracy_ci95': 0.1, 'transductive': True}
    metrics.write_evaluation(
      run, 'test', 180, row, {'accuracy': np.full(9, right)}
    )
  (tmp_path / 'gradient' / 'omniglot' / 'maml-2').mkdir()  # interrupted
  arguments = types.SimpleNamespace(
    page='gradient', runs=tmp_path, dataset='omniglot', target='', steps=0
  )
  (line,) = [s for s in results.page(arguments).splitlines() if 'maml' in s]
  assert line.startswith('| maml | 60.0 +- ') and '(2 seeds)' in line
  assert line.endswith('| yes | 180 | 2 |')  # 60 s and 120 / 2 s


def test_a_finished_run_of_other_settings_is_not_taken(
  tmp_path, capsys, monkeypatch
):
  config = resolve('protonet', 'glyphs,way=5').unlock()
  config.steps = 60
  (tmp_path / 'config.json').write_text(config_lib.to_json(config))
  (tmp_path / 'DONE').touch()
  train = lambda *flags: results.train(
    types.SimpleNamespace(steps=0, data_dir='elsewhere', page='metric'),
    tmp_path,
    'protonet.py:glyphs,way=5',
    ['--config.steps=60', *flags],
    0,
  )
  monkeypatch.setattr(results, 'folder', lambda _: tmp_path)
  train()
  with pytest.raises(SystemExit) as stopped:
    train('--config.optimizer.learning_rate=5e-2')
  assert stopped.value.code == 2
  assert 'optimizer.learning_rate: 0.001 -> 0.05' in capsys.readouterr().err


def test_scores_of_sequences_are_summarised_over_seeds_and_episodes(tmp_path):
  rng = np.random.default_rng(0)
  found = rng.uniform(0.1, 0.3, size=(2, 9))
  for seed in (0, 1):
    run = tmp_path / 'continual' / 'omniglot' / f'reset-{seed}'
    run.mkdir(parents=True)
    (run / 'DONE').touch()
    (run / 'train.jsonl').write_text('{"step": 60, "steps_per_second": 1}\n')
    values = {'accuracy': found[seed], 'forgetting_class': found[seed]}
    row = {name: value.mean() for name, value in values.items()}
    row['transductive'] = False
    metrics.write_evaluation(run, '10tasks-test', 60, row, values)
  arguments = types.SimpleNamespace(
    page='continual', runs=tmp_path, dataset='omniglot', target='', steps=0
  )
  first, second = [
    line for line in results.page(arguments).splitlines() if 'reset' in line
  ]
  assert first == '| reset | no | 60 | 1 |'
  mean, half = stats.seeds_ci95(found, np.arange(9))
  assert second.startswith('| reset | 10tasks-test |')
  assert f'| {100 * mean:.1f} +- {100 * half:.1f} |' in second


def set_field(config, field, text):
  """Sets a field; a shell variable stands for any value of its type."""
  if '$' not in text:
    config_lib.set_field(config, field, text)
    return
  assert field in config_lib.flatten(config), field


def test_the_quickstart_trains_and_evaluates():
  text = read(ROOT / 'launch' / 'quickstart.sh')
  commands = [c for c in text.splitlines() if '--config=' in c]
  assert len(commands) == 3
  assert all('"$@"' in command for command in commands)
  fields = re.findall(r'--config\.([\w.]+)=', text)
  known = config_lib.flatten(resolve('udl', 'inner'))
  assert set(fields) <= set(known)
  assert 'hyperudl.evaluate --workdir="$run" &' in text
  assert '--once' in text


def test_configs_named_in_any_text_resolve():
  texts = [*ROOT.glob('*.md'), *(ROOT / 'docs').rglob('*.md')]
  texts += [*(ROOT / 'configs').glob('*.py'), *SCRIPTS]
  texts += (ROOT / 'hyperudl').rglob('*.py')
  named = 0
  for path in texts:
    for name, variant in re.findall('=' + CONFIG, path.read_text()):
      config_lib.validate(resolve(name, variant.rstrip('.,')))
      named += 1
  assert named >= 8


def test_help_explains_every_main_and_is_no_failure():
  started = {name: runs.start(name, '--help') for name in MAINS}
  assert {'train', 'evaluate', 'plots', 'data.convert'} <= set(started)
  for name, process in started.items():
    done = runs.finish(process)
    assert (done.code, done.err) == (0, ''), name
    flags = {
      'data.convert': '--source',
      'benchmark': 'hyperudl.benchmark',
      'benchmark_learner': '--batches',
      'encode': '--model',
    }
    assert flags.get(name, '--workdir') in done.out, name
    if name != 'benchmark':
      assert 'Exit codes' in ' '.join(done.out.split()), name
