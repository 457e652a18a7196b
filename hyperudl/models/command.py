"""Starts the commands: `hyperudl train`, `hyperudl classify` and so on."""

import runpy
import sys

from hyperudl.core import cli

# What each command runs, as `python -m` does.
COMMANDS = {
  'train': 'hyperudl.train',
  'evaluate': 'hyperudl.evaluate',
  'classify': 'hyperudl.models.classify',
  'demo': 'hyperudl.models.demo',
  'export': 'hyperudl.models.export',
  'plots': 'hyperudl.plots',
  'convert': 'hyperudl.data.convert',
}


def main() -> None:
  """Run the command that the first argument names, with all others."""
  name = sys.argv[1] if len(sys.argv) > 1 else ''
  usage = (
    f'usage: hyperudl {"|".join(COMMANDS)} --flag=value ...; '
    '`hyperudl COMMAND --help` explains its flags'
  )
  if name in ('-h', '--help', 'help'):
    sys.stdout.write(f'{usage}\n')
    return
  if name not in COMMANDS:
    cli.fail(2, f'there is no command {name!r}; {usage}')
  sys.argv = [f'hyperudl {name}', *sys.argv[2:]]
  runpy.run_module(COMMANDS[name], run_name='__main__', alter_sys=True)
