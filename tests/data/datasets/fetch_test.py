"""Downloads go on where they stopped and are verified."""

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

DATA = bytes(range(256)) * 600
SHA256 = hashlib.sha256(DATA).hexdigest()
ROOT = str(pathlib.Path(__file__).parents[3])


class Handler(http.server.BaseHTTPRequestHandler):
  """Serves `server.files`; the first answers break off as `server.cuts` say."""

  def do_GET(self):
    server = self.server
    data = server.files.get(self.path)
    start = self.headers.get('Range', 'bytes=0-')[6:-1]
    start = int(start) if server.ranges else 0
    server.requests.append((self.path, start))
    if data is None or start >= len(data):
      self.send_error(404 if data is None else 416)
      return
    self.send_response(206 if start else 200)
    self.send_header('Content-Length', str(len(data) - start))
    self.end_headers()
    end = start + server.cuts.pop(0) if server.cuts else len(data)
    self.wfile.write(data[start:end])

  def log_message(self, *_):
    """Keeps quiet."""


@pytest.fixture
def server(monkeypatch):
  monkeypatch.setenv('no_proxy', '127.0.0.1')
  serving = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
  serving.files, serving.cuts, serving.requests = {'/x.zip': DATA}, [], []
  serving.ranges = True
  thread = threading.Thread(
    target=functools.partial(serving.serve_forever, poll_interval=0.01)
  )
  thread.start()
  serving.url = f'http://127.0.0.1:{serving.server_port}'
  yield serving
  serving.shutdown()
  thread.join()
  serving.server_close()


def get(server, tmp_path, name='x.zip', sha256=SHA256, tries=4):
  path = str(tmp_path / name)
  fetch.fetch(f'{server.url}/{name}', path, sha256, tries=tries, wait=0.001)
  return path


def starts(server):
  return [start for _, start in server.requests]


def test_a_file_is_fetched_once(server, tmp_path):
  path = get(server, tmp_path)
  assert fetch.digest(path) == SHA256
  get(server, tmp_path)
  assert starts(server) == [0]
  assert os.listdir(tmp_path) == ['x.zip']


def test_a_broken_connection_goes_on_where_it_stopped(server, tmp_path):
  server.cuts = [1000, 50000, 7]
  path = get(server, tmp_path)
  assert fetch.digest(path) == SHA256
  assert starts(server) == [0, 1000, 51000, 51007]


def test_the_next_call_goes_on_too(server, tmp_path):
  server.cuts = [1000, 2000]
  with pytest.raises(core.Error, match='broken off after 2000') as caught:
    get(server, tmp_path, tries=2)
  assert caught.value.exit_code == 1
  assert os.path.getsize(tmp_path / 'x.zip.part') == 3000
  get(server, tmp_path)
  assert starts(server) == [0, 1000, 3000]


def test_a_server_without_ranges_starts_again(server, tmp_path):
  server.ranges = False
  server.cuts = [1000]
  path = get(server, tmp_path)
  assert fetch.digest(path) == SHA256
  assert starts(server) == [0, 0]


def test_a_part_that_is_complete_already_is_taken(server, tmp_path):
  (tmp_path / 'x.zip.part').write_bytes(DATA)
  assert fetch.digest(get(server, tmp_path)) == SHA256


def test_a_part_of_another_file_is_thrown_away(server, tmp_path):
  (tmp_path / 'x.zip.part').write_bytes(b'wrong' * 99)
  assert fetch.digest(get(server, tmp_path)) == SHA256
  assert starts(server) == [495, 0]


def test_a_wrong_checksum_is_refused(server, tmp_path):
  with pytest.raises(
    core.Error, match=f'sha256 {SHA256}, expected 00'
  ) as caught:
    get(server, tmp_path, sha256='0' * 64)
  assert '\n' not in str(caught.value)
  assert os.listdir(tmp_path) == []
  assert len(server.requests) == 4


def test_a_file_that_is_not_there_is_not_asked_for_again(server, tmp_path):
  with pytest.raises(core.Error, match='404'):
    get(server, tmp_path, name='y.zip')
  assert len(server.requests) == 1


def test_nobody_answering_is_an_error(server, tmp_path):
  server.server_close()
  with pytest.raises(core.Error, match='cannot be downloaded'):
    get(server, tmp_path, tries=2)


def test_what_is_no_address_or_no_folder_is_refused(server, tmp_path):
  with pytest.raises(core.BadInput, match='is no address'):
    fetch.fetch('example', str(tmp_path / 'x'), SHA256)
  with pytest.raises(core.Unwritable, match='cannot be written'):
    get(server, tmp_path / 'nowhere')


def test_the_launch_script_downloads_and_converts(server, tmp_path):
  sums = []
  for part, alphabets in (('background', range(6)), ('evaluation', (6, 7))):
    path = omniglot_test.write_omniglot(tmp_path / 'web', part, alphabets)
    server.files[f'/o/{path.name}'] = path.read_bytes()
    sums.append(fetch.digest(path))
  server.cuts = [2000]
  environment = {
    **os.environ,
    'OMNIGLOT_URL': f'{server.url}/o/',
    'DATA_DIR': str(tmp_path / 'data'),
    'PYTHON': sys.executable,
  }
  command = ['bash', os.path.join(ROOT, 'launch', 'data_omniglot.sh')]
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
  assert starts(server) == [0, 2000, 0]
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
