"""Holds what the commands share: one-line errors, exit codes, signals, set-up.

Exit codes: 0 done; 2 bad flag, config or data; 3 no readable checkpoint; 4
non-finite loss; 5 disk full or unwritable; 6 working directory busy; 7 another
process of the run has ended; 8 a device has too little memory; 130 Ctrl-C; 143
SIGTERM. Errors of `core.Error` carry theirs.
"""

from collections.abc import Callable
from collections.abc import Sequence
import logging as python_logging
import os
import pathlib
import signal
import sys
from typing import Any
from typing import NoReturn
import warnings

from absl import app
from absl import flags
from absl import logging
from ml_collections import config_flags

from hyperudl import core
from hyperudl.core import config_flag

INTERRUPTED = 128 + signal.SIGINT  # 130

flags.disclaim_key_flags()  # `--help` lists flags under the command's module


def fail(code: int, message: object) -> NoReturn:
  """End the process with `code` and one line on stderr, without a traceback."""
  _print_line(message)
  sys.exit(code)


def _print_line(message):
  path = pathlib.Path(sys.argv[0])
  name = path.parent.name if path.stem == '__main__' else path.stem
  sys.stderr.write(f'{name}: {" ".join(str(message).split())}\n')
  sys.stderr.flush()


def run_with_overrides(
  main: Callable[[list[str], dict[str, str]], Any],
) -> None:
  """Run `main(argv, changes)` as `run` does, for a main without a config file.

  Arguments --config.x.y=v are taken out of the command line and passed on as
  {'x.y': 'v'}: they change the config that a run has stored.
  """
  try:
    changes, rest = split_changes(sys.argv[1:])
  except core.BadInput as error:
    fail(error.exit_code, error)
  sys.argv = [sys.argv[0], *rest]
  run(lambda argv: main(argv, changes))


def split_changes(
  arguments: Sequence[str],
) -> tuple[dict[str, str], list[str]]:
  """Divide arguments into {'x.y': 'v'} of --config.x.y=v, and all others.

  Raises:
    core.BadInput: for a --config.x.y without a value.
  """
  changes, rest = {}, []
  for argument in arguments:
    name, equals, value = argument.lstrip('-').partition('=')
    if argument.startswith('-') and name.startswith('config.'):
      if not equals:
        raise core.BadInput(f'write {argument}=VALUE')
      changes[name.removeprefix('config.')] = value
    else:
      rest.append(argument)
  return changes, rest


def run(main: Callable[[list[str]], Any]) -> None:
  """Run `main(argv)` with the exit codes listed above."""

  def guarded(argv):
    try:
      if len(argv) > 1:
        raise core.BadInput(
          f'unexpected argument {argv[1]!r}; every option is --name=value '
          '(see --help)'
        )
      return main(argv)
    except core.PeerLost as error:
      _print_line(error)
      os._exit(error.exit_code)  # the usual end would wait for the lost process
    except core.Error as error:
      fail(error.exit_code, error)
    except KeyboardInterrupt:
      fail(INTERRUPTED, 'interrupted')
    except RuntimeError as error:
      if out_of_memory := as_out_of_memory(error):
        fail(out_of_memory.exit_code, out_of_memory)
      raise

  app.run(guarded, flags_parser=_parse)


def as_out_of_memory(error: RuntimeError) -> core.OutOfMemory | None:
  """Return an error of XLA as what to tell the user if a device is full."""
  from_xla = type(error).__name__ in ('JaxRuntimeError', 'XlaRuntimeError')
  if not from_xla or 'RESOURCE_EXHAUSTED' not in str(error):
    return None
  reason = ' '.join(str(error).splitlines()[0].split())[:160]
  return core.OutOfMemory(
    f'the device has too little memory ({reason}): make config.batch or '
    'config.chunk (episodes at once, with strategy=vmap) smaller, or '
    'choose --config.strategy=scan; for evaluation config.eval.batch. On '
    'a CPU fewer --cpu_devices need less'
  )


def _parse(argv):
  """Parse the flags; a bad one ends the process with one line."""
  _let_configs_import_common(argv)
  try:
    expanded = flags.FLAGS.read_flags_from_files(argv, force_gnu=False)
    rest = flags.FLAGS(config_flag.keep_last(expanded))
    if 'config' in flags.FLAGS and flags.FLAGS.config is not None:
      # A file that cannot be read raises only when its config is used.
      flags.FLAGS.config.items()
    return rest
  except SystemExit:  # absl ends --help as if it had failed
    sys.exit(0)
  except Exception as error:  # absl and ml_collections raise many kinds
    fail(core.BadInput.exit_code, config_flag.explain(error))


def _let_configs_import_common(argv):
  """Put the folder above `configs/` on the path, whatever the directory."""
  for i, argument in enumerate(argv):
    name, _, value = argument.lstrip('-').partition('=')
    if name == 'config':
      value = value or (argv[i + 1] if i + 1 < len(argv) else '')
      path = pathlib.Path(value.partition(':')[0]).resolve()
      if path.parent == config_flag.config_folder():
        config_flag.let_configs_be_imported()
      else:
        sys.path.insert(0, str(path.parent.parent))


def set_up(multiprocess: bool = False, cpu_devices: int | None = None) -> None:
  """Configure logging to stderr and a persistent cache of compiled programs.

  Args:
    multiprocess: join other processes if the environment names any.
    cpu_devices: number of devices to divide the CPU into, or None for what
      XLA_FLAGS say.
  """
  # Imported late: flags must fail fast, and before a backend is chosen.
  import jax

  from hyperudl.core import distributed

  if cpu_devices:
    jax.config.update('jax_num_cpu_devices', cpu_devices)
  set_up_logging()
  # JAX reports at INFO which accelerators it did not find.
  python_logging.getLogger('jax').setLevel(python_logging.WARNING)
  if 'JAX_COMPILATION_CACHE_DIR' not in os.environ:
    root = os.environ.get('XDG_CACHE_HOME') or '~/.cache'
    path = pathlib.Path(root).expanduser() / 'hyperudl' / 'xla'
    if _is_writable(path):
      jax.config.update('jax_compilation_cache_dir', str(path))
      jax.config.update('jax_persistent_cache_min_compile_time_secs', 1.0)
    else:
      logging.info('%s may not be written: programs are compiled anew', path)
  # JAX would warn of every program that it cannot store.
  warnings.filterwarnings('ignore', 'Error .*persistent compilation cache')
  if multiprocess:
    distributed.initialize()


def set_up_logging() -> None:
  """Log to stderr, each message with its time of day."""
  logging.set_verbosity(logging.INFO)
  logging.use_absl_handler()
  logging.get_absl_handler().setFormatter(
    python_logging.Formatter('%(asctime)s %(message)s', '%H:%M:%S')
  )


def define_config(help: str, lock: bool = True) -> None:
  """Define --config=FILE.py[:variant] or NAME[:variant], and --config.x=v."""
  sys.argv[:] = config_flag.expand_names(sys.argv)
  try:  # it reads the command line already
    config_flags.DEFINE_config_file('config', None, help, lock_config=lock)
  except flags.Error as error:  # a flag file that cannot be read
    fail(core.BadInput.exit_code, error)


def _is_writable(folder):
  """Return whether files can be written to a folder, made if it is missing."""
  try:
    folder.mkdir(parents=True, exist_ok=True)
  except OSError:
    return False
  return os.access(folder, os.W_OK)


def define_allow_new_classes() -> None:
  """Define --allow_new_classes, for commands that go on with a run."""
  flags.DEFINE_boolean(
    'allow_new_classes',
    False,
    'Go on if the data set has classes that the run does not know, and put '
    'them into test. By default a set that has changed is refused.',
  )


def define_cpu_devices() -> None:
  """Define --cpu_devices, for commands that can compute on several devices."""
  flags.DEFINE_integer(
    'cpu_devices',
    None,
    'Number of devices to divide a CPU into. 0: up to one for each core, such '
    'that they divide the episodes of a call evenly (one for an evaluator that '
    'polls). Default: one, or what XLA_FLAGS say.',
  )


class Stop:
  """True once SIGTERM or Ctrl-C has come; a second Ctrl-C ends the process."""

  code: int = 0  # exit code of the signal: 143 or 130

  def install(self) -> None:
    """Handle the signals from now on; call in the main thread."""
    signal.signal(signal.SIGTERM, self._handle)
    signal.signal(signal.SIGINT, self._handle)

  def _handle(self, number, frame):
    del frame
    if self.code and number == signal.SIGINT:
      os._exit(INTERRUPTED)
    self.code = 128 + number

  def __bool__(self) -> bool:
    return bool(self.code)
