"""Writes the network of a task: `hyperudl export --task=FILE --out=cnn.onnx`.

FILE is what `hyperudl classify --save=FILE` or `Task.save` has written. The
ending of OUT chooses the format: .npz and .safetensors have the weights by
name, .stablehlo and .onnx compute probabilities f32[n, classes] of pixels
f32[n, H, W, C] in [0, 1]. The last three need `pip install 'hyperudl[export]'`.

Exit codes: 0 done; 2 bad flag, task or ending (nothing written); 5 disk full or
unwritable; 8 a device has too little memory; 130 Ctrl-C.
"""

from absl import flags
from absl import logging

from hyperudl import core
from hyperudl.core import cli
from hyperudl.core import paths
from hyperudl.models import formats
from hyperudl.models import loading


def main(argv: list[str]) -> None:
  """Export the task that the flags name."""
  del argv
  values = flags.FLAGS
  if not (values.task and values.out):
    raise core.BadInput('give --task and --out')
  formats.check(values.out)
  cli.set_up()
  loading.load_task(values.task).export(values.out)
  logging.info('wrote %s', values.out)


def define_flags() -> None:
  """Define the flags of this command."""
  paths.define(
    'task', None, 'File that `hyperudl classify --save` has written.'
  )
  paths.define('out', None, 'File to write; its ending chooses the format.')


if __name__ == '__main__':
  define_flags()
  cli.run(main)
