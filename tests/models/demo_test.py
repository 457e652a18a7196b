"""The requests of the demo page: equal to a task's answers, or refused.

Guards: models/demo/server.py, models/demo/answers.py.
"""

import base64
import contextlib
import dataclasses
from http import client
import io
import json
import threading

import numpy as np
from PIL import Image
import pytest

from hyperudl.evaluation import calibration
from hyperudl.models.demo import answers
from hyperudl.models.demo import server
from tests.testing import errors
from tests.testing import models
from tests.testing import runs

JSON = {'Content-Type': 'application/json'}


@contextlib.contextmanager
def serving(model):
  """Serve a model in a thread."""
  with server.Server(model, 0) as running:
    thread = threading.Thread(target=running.serve_forever)
    thread.start()
    try:
      yield running
    finally:
      running.shutdown()
      thread.join()


@pytest.fixture(scope='module')
def calibrated():
  """A model that carries a temperature and a threshold."""
  model = models.make()
  values = {'temperature': {'2': 3.0, '3': 2.0}, 'unknown': {'2': 0, '3': -0.1}}
  return dataclasses.replace(model, about={'data': 'x', 'calibration': values})


@pytest.fixture(scope='module')
def running(calibrated):
  with serving(calibrated) as found:
    yield found


def send(running, method, path, body=None, headers=()):
  """Return (status, content, headers) of one request."""
  connection = client.HTTPConnection(server.ADDRESS, running.server_port)
  with contextlib.closing(connection):
    connection.request(method, path, body, dict(headers))
    answer = connection.getresponse()
    return answer.status, answer.read(), answer.headers


def post(running, path, request, headers=()):
  """Return (status, JSON) of a request of JSON."""
  body = request if isinstance(request, bytes) else json.dumps(request).encode()
  answer = send(running, 'POST', path, body, JSON | dict(headers))
  return answer[0], json.loads(answer[1])


def data_url(image):
  stream = io.BytesIO()
  Image.fromarray(image).save(stream, 'PNG')
  return f'data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}'


def make_request(queries=(), unlabelled=()):
  """A request with the support of `models.support`."""
  x, labels = models.support()
  return {
    'classes': [
      {'name': name, 'images': [data_url(i) for i in x[labels == name]]}
      for name in reversed(models.CLASSES)
    ],
    'unlabelled': [data_url(image) for image in unlabelled],
    'queries': [data_url(image) for image in queries],
  }


def test_the_answer_is_that_of_the_task(running, calibrated):
  queries, others = models.pixels(5), models.pixels(3, seed=8)
  request = make_request(queries, others)
  status, found = post(running, '/classify', request)
  assert status == 200, found
  task = calibrated.adapt(*models.support(), unlabelled=others).calibrate()
  assert found['temperature'] == task.temperature == pytest.approx(2)
  assert found['classes'] == list(models.CLASSES)
  p = task.predict_proba(queries)
  rows = found['predictions']
  np.testing.assert_allclose([r['probabilities'] for r in rows], p, atol=1e-6)
  assert [row['label'] for row in rows] == task.predict(queries).tolist()
  entropies = [row['entropy'] for row in rows]
  np.testing.assert_allclose(entropies, calibration.entropy(p), atol=1e-5)
  unknown = [row['unknown'] for row in rows]
  assert unknown == (task.best_logits(queries) < -0.1).tolist()
  assert found['filters'] == []  # prototypes only
  status, report = post(running, '/report', request)
  assert status == 200
  assert report == json.loads(json.dumps(task.report))
  assert report['leave_one_out']['images'] == 6


def test_a_network_without_calibration_says_nothing_of_unknown_classes():
  found = answers.Answers(models.make()).classify(
    make_request(models.pixels(1))
  )
  assert found['predictions'][0]['unknown'] is None
  assert found['temperature'] == 1


def test_generated_filters_are_those_of_the_first_layer():
  model = models.make('maml')
  found = answers.Answers(model).classify(make_request())
  assert found['predictions'] == []
  task = model.adapt(*models.support()).adapted.task
  kernel = task['value']['block0']['kernel']
  assert np.shape(found['filters']) == (6, 3, 3, 1)
  np.testing.assert_allclose(
    np.array(found['filters'])[1, :, :, 0], kernel[:, :, 0, 1], atol=1e-6
  )


def test_the_page_and_the_model_are_served_and_no_other_file(running):
  status, page, headers = send(running, 'GET', '/')
  assert status == 200 and b'<title>hyperudl demo</title>' in page
  assert "default-src 'none'" in headers['Content-Security-Policy']
  for name in ('/page.js', '/page.css'):
    assert name.encode() in page and send(running, 'GET', name)[0] == 200
  about = json.loads(send(running, 'GET', '/model')[1])
  assert about['way'] == 3 and about['inputs']['height'] == 8
  for path in ('/server.py', '/../model.py', '/page.html', '//etc/passwd'):
    assert send(running, 'GET', path)[0] == 404, path
  assert post(running, '/model', {})[0] == 404
  assert send(running, 'PUT', '/')[0] == 501
  assert running.server_address[0] == '127.0.0.1'


def test_other_sites_are_refused(running):
  port = running.server_port
  good = [{}, {'Host': f'localhost:{port}'}, {'Host': '127.0.0.1'}]
  good += [{'Origin': f'http://127.0.0.1:{port}'}]
  bad = [{'Host': f'evil.example:{port}'}, {'Host': ''}, {'Host': '[::1'}]
  bad += [{'Host': '127.0.0.1.evil.example'}, {'Origin': 'null'}]
  bad += [{'Origin': 'http://evil.example'}, {'Origin': 'http://127.0.0.1:1'}]
  request = make_request(models.pixels(1))
  for headers in good:
    assert post(running, '/classify', request, headers)[0] == 200, headers
    assert send(running, 'GET', '/', None, headers)[0] == 200, headers
  for headers in bad:
    status, found = post(running, '/classify', request, headers)
    assert status == 403 and list(found) == ['error'], headers
    assert send(running, 'GET', '/', None, headers)[0] == 403, headers


def change(**values):
  return {**make_request(models.pixels(1)), **values}


def with_classes(*images, names='abcdefgh'):
  return change(
    classes=[{'name': n, 'images': i} for n, i in zip(names, images)]
  )


URL = data_url(models.pixels(1)[0])
TEXT = f'data:text/plain;base64,{base64.b64encode(b"no image").decode()}'
BAD = {
  'no JSON': b'{',
  'is no JSON': b'[' * 100_000,
  'expected {"classes"': [],
  'expected {': change(classes='ant'),
  'expected {"cl': change(queries=[1]),
  '1 classes': with_classes([URL]),
  '4 classes; this network takes 2 to 3': with_classes(*[[URL]] * 4),
  "class 'b' has no image": with_classes([URL], []),
  "two classes are called 'a'": with_classes([URL], [URL], names='aa'),
  "a class is called ''": with_classes([URL], [URL], names=' b'),
  'called': with_classes([URL], [URL], names=('a' * 101, 'b')),
  'called ': with_classes([URL], [URL], names=('a\0', 'b')),
  'query 1: expected a data URL': change(queries=['/etc/passwd']),
  'query 2: expected a data URL': change(queries=[URL, 'data:;base64,?']),
  'unlabelled image 1: not an image file': change(unlabelled=[TEXT]),
  '301 images': change(queries=[URL] * 301),
  '307 images': change(queries=[URL] * 200, unlabelled=[URL] * 101),
}


@pytest.mark.parametrize('words', BAD)
def test_bad_requests_get_one_line(running, words):
  status, found = post(running, '/classify', BAD[words])
  assert status == 400 and list(found) == ['error']
  assert words in found['error'] and '\n' not in found['error']


def test_sizes_and_types_are_checked_before_a_request_is_read(running):
  large = {'Content-Length': str(server.MOST_BYTES + 1)}
  status, content, _ = send(running, 'POST', '/classify', None, JSON | large)
  assert status == 413 and 'expected at most 32' in json.loads(content)['error']
  for length in ('-1', 'x', '9' * 5000):
    headers = JSON | {'Content-Length': length}
    assert send(running, 'POST', '/classify', None, headers)[0] in (400, 413)
  status, content, _ = send(running, 'POST', '/classify', b'{}')
  assert status == 400 and 'Content-Type' in json.loads(content)['error']


def test_the_page_is_served_while_a_task_is_adapted(running, monkeypatch):
  begun, done = threading.Event(), threading.Event()
  monkeypatch.setattr(
    answers, 'filters', lambda task: begun.set() or done.wait(60) or np.zeros(0)
  )
  request = make_request(models.pixels(1))
  thread = threading.Thread(target=post, args=(running, '/classify', request))
  thread.start()
  assert begun.wait(60)
  assert (
    send(running, 'GET', '/')[0] == send(running, 'GET', '/model')[0] == 200
  )
  assert thread.is_alive()
  done.set()
  thread.join()


def test_a_failure_is_one_line_and_logged(running, monkeypatch):
  logged = []
  monkeypatch.setattr(server.logging, 'exception', lambda *a: logged.append(a))
  monkeypatch.setattr(answers, 'filters', lambda task: 1 / 0)
  status, found = post(running, '/classify', make_request())
  assert status == 500 and 'terminal' in found['error'] and len(logged) == 1


def test_bad_flags_are_refused_in_one_line():
  faults = {
    'give --model': [],
    'no model': ['--model=nope', '--noopen'],
    '--port=70000': ['--model=nope', '--port=70000'],
  }
  results = runs.call_many('models.demo', list(faults.values()))
  for words, result in zip(faults, results):
    assert result.code == 2 and words in result.line, (words, result)


def test_a_port_in_use_and_images_of_two_channels_are_refused(running):
  model = models.make()
  message = errors.refusal(server.Server, model, running.server_port)
  assert f'--port={running.server_port} cannot be used' in message
  inputs = dataclasses.replace(model.inputs, channels=2)
  model = dataclasses.replace(model, inputs=inputs)
  assert '2 channels' in errors.refusal(server.Server, model, 0)
