"""Scripts and help: what they name exists, and every config resolves."""

import importlib
import pathlib
import re
import shlex
import subprocess

import pytest

from hyperudl.core import config as config_lib
from tests.testing import runs

ROOT = pathlib.Path(__file__).parents[2]
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


def read(path, chosen=False):
  """The text of a script with continued lines joined, without comments.

  chosen: with what ${NAME:+...} adds where NAME is given.
  """
  text = path.read_text().replace('\\\n', ' ')
  text = re.sub(r'\$\{REFERENCE:\+([\w,]+)\}', r'\1' * chosen, text)
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
  # The second time with what is added on request, where there is anything.
  texts = dict.fromkeys([read(path), read(path, chosen=True)])
  for command in '\n'.join(texts).splitlines():
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
  # A flag that the user gives comes after the script's own.
  assert training.index('--cpu_devices=0') < training.index('--config.steps')


@pytest.mark.parametrize('path', SCRIPTS, ids=lambda path: path.name)
def test_a_script_gives_its_config_first(path):
  for line in read(path).splitlines():
    called = re.match(r'\s*run_(setting|across)\b', line)
    if called and '()' not in line:
      assert re.match(r'\s*run_(setting|across \S+ \w+)\s+--config=', line)


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
    if name in ('train', 'evaluate'):  # a flag that they share
      assert '--cpu_devices' in done.out, name
