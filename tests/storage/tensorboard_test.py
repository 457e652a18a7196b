"""A TensorBoard server shows over HTTP what was written."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request

import jax.numpy as jnp
from matplotlib import figure
import numpy as np
from PIL import Image
import pytest
from tensorboard.backend.event_processing import event_accumulator

from hyperudl.storage import tensorboard
from tests.testing import runs


def fetch(address, **query):
  """Asks a server that may still be starting."""
  address = f'{address}?{urllib.parse.urlencode(query)}'
  for _ in range(300):
    try:
      with urllib.request.urlopen(address, timeout=10) as answer:
        return answer.read()
    except OSError:
      time.sleep(0.1)
  raise AssertionError(f'{address} does not answer')


@pytest.fixture
def serve():
  """logdir -> the address of a TensorBoard server on it."""
  servers = []

  def start(logdir):
    with socket.socket() as free:
      free.bind(('127.0.0.1', 0))
      port = free.getsockname()[1]
    command = [sys.executable, '-m', 'tensorboard.main', '--logdir', logdir]
    command += ['--host', '127.0.0.1', '--port', str(port)]
    servers.append(
      subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
      )
    )
    return f'http://127.0.0.1:{port}/data/plugin'

  yield start
  for server in servers:
    server.terminate()
    server.wait()


def write_run(workdir):
  """A trainer that was killed after step 30 and went on from step 20."""
  writer = tensorboard.open_writer(workdir, 'train')
  for step in (10, 20, 30):
    scalars = {'loss': jnp.float32(step), 'bad': np.nan, 'inner/rate': [0.5]}
    tensorboard.write_scalars(writer, step, scalars)
  tensorboard.close_writer(writer)
  writer = tensorboard.open_writer(workdir, 'train', purge_step=21)
  tensorboard.write_scalars(writer, 30, {'loss': jnp.bfloat16(33)})
  images = np.zeros((5, 4, 6, 1))
  images[1] = 1
  tensorboard.write_images(writer, 30, 'support', images, columns=3)
  plot = figure.Figure(figsize=(2, 1), dpi=50)
  plot.subplots().plot([1, 2])
  tensorboard.write_figure(writer, 30, 'curve', plot)
  tensorboard.write_histogram(writer, 30, 'weights', [1, 2, 2, np.nan, np.inf])
  tensorboard.close_writer(writer)
  writer = tensorboard.open_writer(workdir, 'eval')
  tensorboard.write_scalars(writer, 20, {'accuracy': 0.75})
  tensorboard.close_writer(writer)


def pictures(address, tag, tmp_path):
  """The decoded PNGs that the server shows under a tag."""
  entries = json.loads(
    fetch(address + '/images/images', run='train', tag=tag, sample=0)
  )
  for entry in entries:
    query = dict(urllib.parse.parse_qsl(entry['query']))
    content = fetch(f'{address}/images/individualImage', **query)
    (tmp_path / 'x.png').write_bytes(content)
    yield np.asarray(Image.open(tmp_path / 'x.png'))


def test_a_tensorboard_server_shows_what_was_written(tmp_path, serve, warnings):
  write_run(tmp_path)
  assert warnings == []
  address = serve(tmp_path / 'tb')
  for _ in range(100):  # the server answers before it has read all
    tags = json.loads(fetch(address + '/images/tags'))
    if 'curve' in tags.get('train', ()):
      break
    time.sleep(0.1)
  scalars = json.loads(fetch(address + '/scalars/tags'))
  assert set(scalars['train']) == {'loss', 'inner/rate'}
  assert set(scalars['eval']) == {'accuracy'}
  rows = json.loads(
    fetch(address + '/scalars/scalars', run='train', tag='loss')
  )
  assert [row[1:] for row in rows] == [[10, 10], [20, 20], [30, 33]]
  (grid,) = pictures(address, 'support', tmp_path)
  assert grid.shape == (8, 18, 3)  # 2 rows of 3 images
  assert grid[:4, 6:12].min() == 255 and grid.sum() == 255 * 24 * 3
  (curve,) = pictures(address, 'curve', tmp_path)
  assert curve.shape == (50, 100, 3) and curve.std() > 10
  histograms = json.loads(
    fetch(address + '/histograms/histograms', run='train', tag='weights')
  )
  assert sum(count for *_, count in histograms[0][2]) == 3


def test_a_reader_drops_what_a_resumed_run_will_write_again(tmp_path):
  writer = tensorboard.open_writer(tmp_path, 'train')
  for step in (10, 20, 30):
    tensorboard.write_scalars(writer, step, {'loss': step})
  tensorboard.close_writer(writer)
  tensorboard.close_writer(
    tensorboard.open_writer(tmp_path, 'train', purge_step=21)
  )
  reader = event_accumulator.EventAccumulator(str(tmp_path / 'tb' / 'train'))
  reader.Reload()
  assert [event.step for event in reader.Scalars('loss')] == [10, 20]


USE = """
import sys
import hyperudl.evaluate, hyperudl.train
from hyperudl.storage import tensorboard
writer = tensorboard.open_writer(sys.argv[1], 'train')
tensorboard.write_scalars(writer, 1, {'loss': 2.0})
tensorboard.close_writer(writer)
assert 'torch' not in sys.modules and not writer.failed
"""


def test_a_broken_torch_beside_it_is_not_imported(tmp_path):
  package = tmp_path / 'torch'
  package.mkdir()
  (package / '__init__.py').write_text("raise OSError('libcudart is broken')")
  path = os.pathsep.join([str(tmp_path), str(runs.ROOT)])
  done = subprocess.run(
    [sys.executable, '-c', USE, str(tmp_path / 'run')],
    env={**os.environ, 'PYTHONPATH': path},
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr
  events = event_accumulator.EventAccumulator(str(tmp_path / 'run/tb/train'))
  events.Reload()
  assert [e.value for e in events.Scalars('loss')] == [2.0]
