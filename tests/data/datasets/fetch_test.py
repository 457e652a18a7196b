"""Downloads are verified by their checksum and tried again."""

import functools
import hashlib
import http.server
import os
import pathlib
import subprocess
import sys
import threading

import numpy as np
import pytest

from hyperudl import core
from hyperudl.data.datasets import fetch
from tests.data.datasets import omniglot_test
from tests.testing import errors

DATA = bytes(range(256)) * 600
SHA256 = hashlib.sha256(DATA).hexdigest()
ROOT = str(pathlib.Path(__file__).parents[3])


class Handler(http.server.BaseHTTPRequestHandler):
  """Serves `server.files`; the first responses break off at `server.cuts`."""

  def do_GET(self):
    server = self.server
    data = server.files.get(self.path)
    server.requests.append(self.path)
    if data is None:
      self.send_error(404)
      return
    self.send_response(200)
    self.send_header('Content-Length', str(len(data)))
    self.end_headers()
    self.wfile.write(data[: server.cuts.pop(0) if server.cuts else len(data)])

  def log_message(self, *_):
    """Keeps quiet."""


@pytest.fixture
def server(monkeypatch):
  monkeypatch.setenv('no_proxy', '127.0.0.1')
  monkeypatch.setattr('pooch.core.time.sleep', lambda seconds: None)
  serving = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
  serving.files, serving.cuts, serving.requests = {'/x.zip': DATA}, [], []
  thread = threading.Thread(
    target=functools.partial(serving.serve_forever, poll_interval=0.01)
  )
  thread.start()
  serving.url = f'http://127.0.0.1:{serving.server_port}'
  yield serving
  serving.shutdown()
  thread.join()
  serving.server_close()


def get(server, path, name='x.zip', sha256=SHA256):
  fetch.fetch(f'{server.url}/{name}', str(path), sha256)
  return path


def test_a_file_is_fetched_once(server, tmp_path):
  path = get(server, tmp_path / 'new' / 'x.zip')
  assert path.read_bytes() == DATA
  get(server, path)
  assert len(server.requests) == 1
  assert os.listdir(path.parent) == ['x.zip']


def test_a_broken_connection_is_tried_again(server, tmp_path):
  server.cuts = [1000, 50000, 7]
  assert get(server, tmp_path / 'x.zip').read_bytes() == DATA
  assert len(server.requests) == 4


def test_too_many_broken_connections_are_an_error(server, tmp_path):
  server.cuts = [1000] * 9
  path = tmp_path / 'x.zip'
  message = errors.refusal(get, server, path, error=core.Error)
  assert 'cannot be downloaded' in message and str(path) in message
  assert len(server.requests) == 1 + fetch.RETRIES
  assert os.listdir(tmp_path) == []


def test_a_file_with_another_checksum_is_replaced(server, tmp_path):
  (tmp_path / 'x.zip').write_bytes(b'wrong' * 99)
  assert get(server, tmp_path / 'x.zip').read_bytes() == DATA


def test_a_wrong_checksum_is_refused(server, tmp_path):
  message = errors.refusal(
    get, server, tmp_path / 'x.zip', sha256='0' * 64, error=core.Error
  )
  assert SHA256 in message and '0' * 64 in message
  assert os.listdir(tmp_path) == []


@pytest.mark.parametrize('closed', [False, True])
def test_a_missing_file_or_server_is_an_error(server, tmp_path, closed):
  if closed:
    server.server_close()
  with pytest.raises(core.Error, match='cannot be downloaded') as caught:
    get(server, tmp_path / 'y.zip', name='y.zip')
  assert caught.value.exit_code == 1
  assert closed or '404' in str(caught.value)


def test_a_malformed_address_is_refused(tmp_path):
  message = errors.refusal(fetch.fetch, 'example', str(tmp_path / 'x'), SHA256)
  assert 'is no address' in message


def test_an_unwritable_place_is_named(server, tmp_path, monkeypatch):
  (tmp_path / 'file').write_text('')
  path = tmp_path / 'file' / 'x.zip'
  message = errors.refusal(get, server, path, error=core.Unwritable)
  assert f'{path}: cannot be written (' in message


def test_a_full_disk_is_named(server, tmp_path, monkeypatch):
  def fail(*_):
    raise OSError(28, 'No space left on device')

  monkeypatch.setattr('shutil.move', fail)
  message = errors.refusal(
    get, server, tmp_path / 'x.zip', error=core.Unwritable
  )
  assert 'No space left on device' in message


def test_the_launch_script_downloads_and_converts(server, tmp_path):
  sums = []
  for part, alphabets in (('background', range(6)), ('evaluation', (6, 7))):
    path = omniglot_test.write_omniglot(tmp_path / 'web', part, alphabets)
    server.files[f'/o/{path.name}'] = path.read_bytes()
    sums.append(hashlib.sha256(path.read_bytes()).hexdigest())
  server.cuts = [2000]
  environment = {
    **os.environ,
    'OMNIGLOT_URL': f'{server.url}/o/',
    'DATA_DIR': str(tmp_path / 'data'),
    'PYTHON': sys.executable,
  }
  command = ['bash', os.path.join(ROOT, 'launch', 'data', 'omniglot.sh')]
  done = subprocess.run(
    [*command, f'--sha256={",".join(sums)}'],
    env=environment,
    cwd=tmp_path,
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr
  assert '16 classes, 48 images' in done.stdout
  assert 'test: 4 classes' in done.stdout
  assert len(server.requests) == 3
  with np.load(tmp_path / 'data' / 'omniglot.npz') as file:
    assert file['images'].shape == (16, 3, 28, 28)
  # Again: nothing is fetched twice, and the official sums do not fit.
  environment['OMNIGLOT_URL'] = f'{server.url}/none'
  again = subprocess.run(
    command, env=environment, capture_output=True, text=True
  )
  assert again.returncode == 1
  assert 'images_background.zip: cannot be downloaded' in again.stderr
  assert again.stderr.count('Traceback') == 0
