"""Serves the demo page and its requests to browsers on this machine."""

from collections.abc import Callable
from http import server
import json
import pathlib
import sys
from typing import Any

from absl import logging

from hyperudl import core
from hyperudl.core import cli
from hyperudl.models.demo import answers as answers_lib
from hyperudl.models.model import Model

ADDRESS = '127.0.0.1'
MOST_BYTES = 1 << 25  # of a request
_SECONDS = 60  # that a browser may take to send a request
_HERE = pathlib.Path(__file__).parent
# What can be had by GET, beside the description of the model.
_FILES = {
  '/': ('page.html', 'text/html; charset=utf-8'),
  '/page.css': ('page.css', 'text/css; charset=utf-8'),
  '/page.js': ('page.js', 'text/javascript; charset=utf-8'),
}
_HEADERS = {
  'Cache-Control': 'no-store',
  'Content-Security-Policy': (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
  ),
  'Referrer-Policy': 'no-referrer',
  'X-Content-Type-Options': 'nosniff',
}


class _Refused(Exception):
  """A request that gets a status and one line."""

  def __init__(self, status: int, message: str):
    super().__init__(message)
    self.status = status


class Server(server.ThreadingHTTPServer):
  """Listens on this machine only; each request has a thread of its own."""

  def __init__(self, model: Model, port: int):
    """Listen; `serve_forever` answers.

    Args:
      model: trained.
      port: of the address; 0 for any free one.

    Raises:
      core.BadInput: the port is taken, or the network takes no image files.
    """
    self.answers = answers_lib.Answers(model)
    try:
      super().__init__((ADDRESS, port), _Handler)
    except OSError as error:
      raise core.BadInput(
        f'--port={port} cannot be used ({error.strerror}): choose another one, '
        'or 0 for any that is free'
      ) from None

  @property
  def url(self) -> str:
    """The address of the page."""
    return f'http://{ADDRESS}:{self.server_port}/'

  def handle_error(self, request: Any, client_address: Any) -> None:
    """Log an error of a connection; browsers may close theirs at any time."""
    error = sys.exception()
    if not isinstance(error, OSError):
      logging.error('%s', error, exc_info=error)


class _Handler(server.BaseHTTPRequestHandler):
  """Answers one request."""

  server: Server
  timeout = _SECONDS  # of the socket

  def do_GET(self) -> None:
    """Send the page, or the description of the model."""
    self._answer(self._get)

  def do_POST(self) -> None:
    """Send predictions or a report."""
    self._answer(self._post)

  def _answer(self, function: Callable[[], tuple[str, bytes]]) -> None:
    try:
      kind, content = function()
      self._send(200, kind, content)
    except _Refused as error:
      self.send_error(error.status, str(error))
    except core.BadInput as error:
      self.send_error(400, str(error))
    except OSError:
      raise  # the connection has ended
    except Exception as error:
      full = isinstance(error, RuntimeError) and cli.as_out_of_memory(error)
      logging.exception('%s failed', self.path)
      self.send_error(500, str(full or 'it failed: see the terminal'))

  def _get(self):
    self._check_sender()
    if self.path == '/model':
      about = {**self.server.answers.describe(), 'most_bytes': MOST_BYTES}
      return _as_json(about)
    if self.path not in _FILES:
      raise _Refused(404, 'there is nothing here; the page is at /')
    name, kind = _FILES[self.path]
    return kind, (_HERE / name).read_bytes()

  def _post(self):
    body = self._read_body()
    self._check_sender()
    answers = self.server.answers
    functions = {'/classify': answers.classify, '/report': answers.report}
    if self.path not in functions:
      raise _Refused(404, f'expected one of {", ".join(functions)}')
    if self.headers.get_content_type() != 'application/json':
      raise _Refused(400, 'expected Content-Type: application/json')
    try:
      request = json.loads(body)
    except (ValueError, RecursionError):
      raise _Refused(400, 'the request is no JSON') from None
    return _as_json(functions[self.path](request))

  def _read_body(self):
    length = self.headers.get('Content-Length', '')
    if not (length.isascii() and length.isdecimal()) or len(length) > 20:
      raise _Refused(400, f'Content-Length: {length[:20]!r}; expected a number')
    if int(length) > MOST_BYTES:
      raise _Refused(
        413,
        f'a request of {int(length) >> 20} MB; expected at most '
        f'{MOST_BYTES >> 20}: remove images, or make them smaller',
      )
    return self.rfile.read(int(length))

  def _check_sender(self):
    """Refuse requests that pages of other sites send.

    Such a page may give its own name this machine's address (DNS rebinding):
    then the name stands in `Host`.

    Raises:
      _Refused: the name or origin is of another machine or page.
    """
    host = self.headers.get('Host', '')
    if host.partition(':')[0] not in (ADDRESS, 'localhost'):
      raise _Refused(403, f'Host: {host[:60]!r}; expected {ADDRESS}')
    origin = self.headers.get('Origin')
    if origin not in (None, f'http://{host}'):
      raise _Refused(403, f'Origin: {origin[:60]!r}; expected http://{host}')

  def _send(self, status, kind, content):
    self.send_response(status)
    headers = {'Content-Type': kind, 'Content-Length': len(content), **_HEADERS}
    for name, value in headers.items():
      self.send_header(name, str(value))
    self.end_headers()
    self.wfile.write(content)

  def send_error(
    self, code: int, message: str | None = None, explain: str | None = None
  ) -> None:
    """Send an error as one line of JSON; http.server calls this too."""
    del explain
    line = ' '.join((message or 'refused').split())
    self._send(code, *_as_json({'error': line}))

  def log_message(self, format: str, *args: Any) -> None:
    """Log nothing: a line for each request helps no one."""


def _as_json(value):
  return 'application/json', json.dumps(value, allow_nan=False).encode()
