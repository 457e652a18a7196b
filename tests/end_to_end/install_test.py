"""The wheel, installed, trains and classifies from an empty folder."""

import csv
import re
import shutil
import subprocess
import sys
import sysconfig
from urllib import request
import venv

import pytest

from tests.testing import image_sets
from tests.testing import models
from tests.testing import runs


def call(*command, cwd):
  variables = {**runs.environment(), 'PYTHONPATH': ''}
  done = subprocess.run(
    [*map(str, command)],
    cwd=cwd,
    env=variables,
    capture_output=True,
    text=True,
    timeout=runs.SECONDS,
  )
  assert done.returncode == 0, done.stderr
  return done.stdout


@pytest.fixture(scope='module')
def installed(tmp_path_factory):
  """The `bin` of an environment with the wheel; other packages are shared."""
  place = tmp_path_factory.mktemp('install')
  source = place / 'source'
  source.mkdir()
  for name in ('hyperudl', 'configs', 'README.md', 'setup.py'):
    path = runs.ROOT / name
    copy = shutil.copytree if path.is_dir() else shutil.copy
    copy(path, source / name)
  shutil.copy(runs.ROOT / 'pyproject.toml', source)
  wheel = [sys.executable, '-m', 'pip', 'wheel', '--no-deps', '-w', place]
  call(*wheel, source, cwd=place)
  venv.create(place / 'env', with_pip=True)
  python = place / 'env' / 'bin' / 'python'
  find = 'import sysconfig; print(sysconfig.get_paths()["purelib"])'
  packages = call(python, '-c', find, cwd=place).strip()
  with open(f'{packages}/shared.pth', 'w') as file:
    file.write(sysconfig.get_paths()['purelib'] + '\n')
  (built,) = place.glob('hyperudl-*.whl')
  install = [python, '-m', 'pip', 'install', '--no-deps', '--force-reinstall']
  call(*install, built, cwd=place)
  return python.parent


@pytest.mark.slow
def test_an_installed_wheel_trains_and_classifies(installed, tmp_path):
  where = 'import hyperudl; print(hyperudl.__file__)'
  found = call(installed / 'python', '-c', where, cwd=tmp_path)
  assert str(installed.parent) in found
  hyperudl = installed / 'hyperudl'
  small = ['--config.learner.channels=4', '--config.steps=2']
  call(
    *(hyperudl, 'train', '--config=protonet:glyphs,way=3,size=8,batch=2'),
    *('--workdir=run', '--config.data.dir=.', *small),
    cwd=tmp_path,
  )
  for number, (image, name) in enumerate(zip(*models.support())):
    path = tmp_path / 'support' / name / f'{number}.png'
    image_sets.draw(path, image)
  flags = ['--model=run', '--support=support', '--query=support', '--out=o.csv']
  call(hyperudl, 'classify', *flags, cwd=tmp_path)
  with open(tmp_path / 'o.csv', encoding='utf-8', newline='') as file:
    rows = list(csv.DictReader(file))
  assert len(rows) == 6 and not any(row['error'] for row in rows)
  check_page([hyperudl, 'demo', '--model=run'], tmp_path)


def check_page(command, cwd):
  """Starts the demo and reads all files of its page."""
  command = [*command, '--port=0', '--noopen']
  variables = {**runs.environment(), 'PYTHONPATH': ''}
  options = {'cwd': cwd, 'env': variables, 'text': True}
  with subprocess.Popen(command, stderr=subprocess.PIPE, **options) as running:
    try:
      line = next(line for line in running.stderr if 'http://' in line)
      (url,) = re.findall(r'http://\S+', line)
      for name in ('', 'page.css', 'page.js'):
        with request.urlopen(url + name) as answer:
          assert answer.status == 200
    finally:
      running.kill()
