"""Scripts and help: the files that they name exist, every config resolves."""

import importlib
import os
import re
import shlex
import subprocess

import pytest

from experiments import run as experiments_run
from hyperudl import learners
from hyperudl.core import config as config_lib
from tests.testing import runs

ROOT = runs.ROOT
LAUNCH = ROOT / 'launch'
SCRIPTS = sorted(LAUNCH.rglob('*.sh'))
SETTINGS = [
  p for p in SCRIPTS if p.parent != LAUNCH and p.parent.name != 'data'
]
DOCS = [*ROOT.glob('*.md'), *sorted((ROOT / 'docs').rglob('*.md'))]
MAINS = [
  *('train', 'evaluate', 'plots', 'benchmark', 'data.convert'),
  *('training.precompute', 'data.language.clip_features', 'models.classify'),
  *('models.demo', 'models.export'),
]
CONFIG = r'configs/(\w+)\.py(?::([\w,=.+-]+))?'


def read(path):
  """The text of a script with continued lines joined, without comments."""
  text = path.read_text().replace('\\\n', ' ')
  text = re.sub(r'\$\{DATASET:-(\w+)\}', r'\1', text)
  return '\n'.join(line for line in text.splitlines() if line[:1] != '#')


def resolve(name, variant):
  """The config of a file and its variant, checked like that of a run."""
  module = importlib.import_module(f'configs.{name}')
  config = module.get_config(variant or None)
  config_lib.validate(config)
  learners.check_run(config)
  learners.make(
    config.learner.name,
    config.episode.way,
    config_lib.learner_settings(config),
  )
  return config


def call_setting(path, tmp_path, *arguments):
  """Runs a script of a setting; its commands only record their words."""
  for name in ('mnist.npz', 'cub.npz'):
    (tmp_path / name).touch()
  calls = tmp_path / 'calls'
  calls.write_text('')
  # After `source launch/common.sh` nothing is installed or run.
  code = (
    'source() { builtin source "$1"; make_environment() { :; }; }; '
    f'python() {{ echo "$@" >> {calls}; }}; '
    f'set -- {shlex.join(arguments)}; builtin source {path}'
  )
  done = subprocess.run(
    ['bash', '-c', code, str(path)],
    env={**os.environ, 'DATA_DIR': str(tmp_path)},
    capture_output=True,
    text=True,
    cwd=ROOT,
    check=False,
  )
  return done, calls.read_text().splitlines()


def test_there_are_few_scripts_and_few_packages():
  assert len([p for p in LAUNCH.rglob('*') if p.is_file()]) <= 30
  assert not list(LAUNCH.rglob('*.py'))
  package = ROOT / 'hyperudl'
  entries = {p.name for p in package.iterdir()} - {'__init__.py', '__pycache__'}
  assert entries == {
    *('core', 'ops', 'storage', 'nets', 'data', 'learners', 'training'),
    *('evaluation', 'plots', 'benchmark', 'models'),
    *('train.py', 'evaluate.py'),
  }


@pytest.mark.parametrize('path', SCRIPTS, ids=lambda path: path.stem)
def test_a_script_is_legal_and_its_commands_exist(path):
  subprocess.run(['bash', '-n', path], check=True)
  text = path.read_text()
  for module in re.findall(
    r'python3? -m ((?:hyperudl|experiments)[\w.]*)', text
  ):
    assert main_of(module), module
  for file in re.findall(r'launch/[\w/]+\.sh', text):
    assert (ROOT / file).exists(), file


def main_of(module):
  """Whether `python -m MODULE` runs a file."""
  path = ROOT / module.replace('.', '/')
  return path.with_suffix('.py').exists() or (path / '__main__.py').exists()


@pytest.mark.parametrize('path', SCRIPTS, ids=lambda path: path.stem)
def test_every_config_of_a_script_resolves(path):
  for command in read(path).splitlines():
    named = re.search(r'--config="?' + CONFIG, command)
    if not named:
      continue
    config = resolve(named[1], (named[2] or '').rstrip(',')).unlock()
    for field, text in re.findall(r'--config\.([\w.]+)=(\S+)', command):
      set_field(config, field, shlex.split(text)[0])
    config_lib.validate(config)


def set_field(config, field, text):
  """Sets a field; a shell variable stands for any value of its type."""
  if '$' not in text:
    config_lib.set_field(config, field, text)
    return
  assert field in config_lib.flatten(config), field


@pytest.mark.parametrize(
  'path', SETTINGS, ids=lambda path: f'{path.parent.name}/{path.stem}'
)
def test_a_setting_trains_every_learner_that_it_lists(path, tmp_path):
  done, calls = call_setting(path, tmp_path, 'no_such_learner')
  assert done.returncode == 2 and not calls
  (line,) = done.stderr.splitlines()
  choices = line.partition('choose one of: ')[2].split()
  assert choices, line
  way, shot = re.search(r'(\d+)way_(\d+)shot', path.name).groups()
  for learner in choices:
    done, calls = call_setting(path, tmp_path, learner, '--config.steps=3')
    assert done.returncode == 0, done.stderr
    (training,) = [c for c in calls if c.startswith('-m hyperudl.train ')]
    name, variant = re.search(f'--config={CONFIG}', training).groups()
    config = resolve(name, variant)
    assert (config.episode.way, config.episode.shot) == (int(way), int(shot))
    # Mains refuse --config.a.b=c before --config=...; flags of the user come
    # after those of the script.
    flags = ['--config=', '--cpu_devices=0', '--config.data', '--config.steps']
    order = [training.index(flag) for flag in flags]
    assert order == sorted(order)
    assert any('hyperudl.evaluate' in call for call in calls)
    assert '-m experiments.summary' in calls[-1]


def test_a_setting_without_a_learner_lists_them(tmp_path):
  path = LAUNCH / 'omniglot' / '5way_1shot.sh'
  done, calls = call_setting(path, tmp_path)
  assert done.returncode == 2 and not calls
  assert 'choose one of: protonet hallucination maml' in done.stderr


def test_a_setting_across_sets_needs_both(tmp_path):
  path = LAUNCH / 'cross_characters' / '5way_1shot.sh'
  done, calls = call_setting(path, tmp_path, 'bayeshmaml')
  assert done.returncode == 0, done.stderr
  across = [call for call in calls if '--dataset=mnist --split=all' in call]
  assert len(across) == 3 and '--tag=samples' in across[-1]
  (tmp_path / 'mnist.npz').unlink()
  code = f'export DATA_DIR={tmp_path}; . launch/common.sh; need_data mnist'
  done = subprocess.run(
    ['bash', '-c', code], capture_output=True, text=True, cwd=ROOT, check=False
  )
  assert done.returncode == 2
  assert f'no data set mnist in {tmp_path}' in done.stderr


def test_the_quickstart_trains_and_evaluates():
  text = read(LAUNCH / 'quickstart.sh')
  commands = [c for c in text.splitlines() if '--config=' in c]
  assert len(commands) == 3
  assert all('"$@"' in command for command in commands)
  fields = re.findall(r'--config\.([\w.]+)=', text)
  known = config_lib.flatten(resolve('udl', 'inner'))
  assert set(fields) <= set(known)
  assert 'hyperudl.evaluate --workdir="$run" &' in text
  assert '--once' in text


def test_configs_named_in_any_text_resolve():
  texts = [*DOCS, *(ROOT / 'configs').glob('*.py'), *SCRIPTS]
  texts += (ROOT / 'hyperudl').rglob('*.py')
  named = 0
  for path in texts:
    for name, variant in re.findall('=' + CONFIG, path.read_text()):
      if name == 'nearest':  # of a recipe
        continue
      resolve(name, variant.rstrip('.,'))
      named += 1
  assert named >= 8


@pytest.mark.parametrize('path', DOCS, ids=lambda path: path.stem)
def test_commands_and_files_of_the_docs_exist(path):
  text = path.read_text()
  if path.name != 'CHANGELOG.md':  # which names what was there before
    retired = re.compile(r'retired; see commit.{0,200}', re.S)
    here = retired.sub('', text)
    for file in re.findall(r'\blaunch/[\w/]+\.(?:sh|py)', here):
      assert (ROOT / file).exists(), file
    for file in re.findall(r'\btests/[\w/]+\.py', here):
      assert (ROOT / file).exists(), file
  for module in re.findall(r'python -m ((?:hyperudl|experiments)[\w.]*)', text):
    assert main_of(module.rstrip('.')), module
  for target in re.findall(r'\]\(([^)#:]+)[^):]*\)', text):
    assert (path.parent / target).exists(), target
  joined = text.replace('\\\n', ' ')
  for flags in re.findall(r'python -m experiments\.run (\w[^\n`]*)', joined):
    if flags.split()[0] != 'PAGE':
      experiments_run.parse_arguments(shlex.split(flags.partition('#')[0]))


def test_help_explains_every_main_and_is_no_failure():
  commands = [(f'hyperudl.{name}', ['--help']) for name in MAINS]
  for name, done in zip(MAINS, runs.in_forks(commands)):
    assert (done.code, done.err) == (0, ''), name
    flags = {
      'data.convert': '--source',
      'benchmark': '--batches',
      'data.language.clip_features': '--model',
      'models.classify': '--support',
      'models.demo': '--port',
      'models.export': '--task',
    }
    assert flags.get(name, '--workdir') in done.out, name
    assert 'xit codes' in ' '.join(done.out.split()).lower(), name
    if name in ('train', 'evaluate'):  # a flag that they share
      assert '--cpu_devices' in done.out, name
