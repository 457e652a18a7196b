"""Shows a page to try a network on: `hyperudl demo --model=M [--port=8000]`.

On the page, which only this machine can open, a person draws or drops a few
images of each class and others to classify. It shows their probabilities, how
certain they are, and the filters that the network was given for these classes.
The model is a run folder, or a file of `Model.save`. Nothing is stored, and
nothing is sent over the network. Ctrl-C ends it.

Exit codes: 2 bad flag or model, or the port is taken; 3 no checkpoint is
readable; 130 Ctrl-C.
"""

import threading
import webbrowser

from absl import flags
from absl import logging

from hyperudl import core
from hyperudl.core import cli
from hyperudl.core import paths
from hyperudl.models import loading
from hyperudl.models.demo import server


def main(argv: list[str]) -> None:
  """Serve the page until the process is interrupted."""
  del argv
  values = flags.FLAGS
  if not values.model:
    raise core.BadInput('give --model: a run folder or a file of a model')
  cli.set_up()
  model = loading.load(values.model, values.step)
  with server.Server(model, values.port) as running:
    logging.info('open %s (Ctrl-C ends it)', running.url)
    if values.open:
      # A browser in the terminal returns only when it ends.
      threading.Thread(
        target=webbrowser.open, args=(running.url,), daemon=True
      ).start()
    running.serve_forever()


def define_flags() -> None:
  """Define the flags of this command."""
  paths.define(
    'model', None, 'Name of a shipped model, run folder, or file of a model.'
  )
  flags.DEFINE_string(
    'step', 'best', 'Checkpoint of a run folder: best, latest or a number.'
  )
  flags.DEFINE_integer(
    'port',
    8000,
    'Of the address; 0: any that is free.',
    lower_bound=0,
    upper_bound=65535,
  )
  flags.DEFINE_boolean('open', True, 'Open the page in the browser.')


if __name__ == '__main__':
  define_flags()
  cli.run(main)
