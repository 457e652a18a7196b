"""What the mains share: flags that fail in one line, exit codes, signals."""

import logging as python_logging
import os
import pathlib
import re
import signal
import sys

from absl import app
from absl import flags
from absl import logging

from hyperudl import core

INTERRUPTED = 130
TERMINATED = 143
QUOTA = '/sys/fs/cgroup/cpu.max'  # of a container: microseconds of a period


def fail(code, message):
  """Ends the process: one line on stderr, no traceback."""
  line = ' '.join(str(message).split())
  sys.stderr.write(f'{_name()}: {line}\n')
  sys.stderr.flush()
  sys.exit(code)


def _name():
  return pathlib.Path(sys.argv[0]).stem


def run_with_overrides(main):
  """As `run`, for a main(argv, changes) without a config file.

  Arguments --config.x.y=v are taken out of the command line and passed on as
  {'x.y': 'v'}: they change the config that a run has stored.
  """
  changes, rest = {}, sys.argv[:1]
  for argument in sys.argv[1:]:
    name, equals, value = argument.lstrip('-').partition('=')
    if argument.startswith('-') and name.startswith('config.'):
      if not equals:
        fail(core.BadInput.exit_code, f'write {argument}=VALUE')
      changes[name.removeprefix('config.')] = value
    else:
      rest.append(argument)
  sys.argv = rest
  run(lambda argv: main(argv, changes))


def run(main):
  """Runs `main(argv)` with the exit codes of `core.Error`.

  0 done; 2 bad flag, config or data; 3 no readable checkpoint; 4 non-finite;
  5 disk full or unwritable; 6 working directory busy; 7 another process of the
  run has ended; 8 a device has too little memory; 130 Ctrl-C.
  """

  def guarded(argv):
    try:
      if len(argv) > 1:
        raise core.BadInput(
          f'unexpected argument {argv[1]!r}; every option is --name=value '
          '(see --help)'
        )
      return main(argv)
    except core.PeerLost as error:
      # The usual end would wait for the lost one.
      sys.stderr.write(f'{_name()}: {error}\n')
      sys.stderr.flush()
      os._exit(error.exit_code)
    except core.Error as error:
      fail(error.exit_code, error)
    except KeyboardInterrupt:
      fail(INTERRUPTED, 'interrupted')
    except RuntimeError as error:
      from_xla = type(error).__name__ in ('JaxRuntimeError', 'XlaRuntimeError')
      if not from_xla or 'RESOURCE_EXHAUSTED' not in str(error):
        raise
      asked = ' '.join(str(error).splitlines()[0].split())[:160]
      fail(
        core.OutOfMemory.exit_code,
        f'the device has too little memory ({asked}): make config.batch or '
        'config.chunk (episodes at once, with strategy=vmap) smaller, or '
        'choose --config.strategy=scan; for evaluation config.eval.batch. On '
        'a CPU each of --cpu_devices takes its share',
      )

  app.run(guarded, flags_parser=_parse)


def _parse(argv):
  _let_configs_import_common(argv)
  try:
    rest = flags.FLAGS(argv)
    if 'config' in flags.FLAGS:
      # A file that could not be read tells so only when it is looked at.
      flags.FLAGS.config.items()
    return rest
  except SystemExit:  # absl ends --help as if it had failed
    sys.exit(0)
  except Exception as error:  # absl and ml_collections raise many kinds
    fail(core.BadInput.exit_code, _explain(error))


def _explain(error):
  """The useful line of an error raised while flags were parsed."""
  # str() of a KeyError is the repr of its text.
  text = str(error.args[0] if isinstance(error, KeyError) else error)
  lines = [line.strip() for line in text.splitlines() if line.strip()]
  near = re.search(r'Did you mean "(.+?)" instead of "(.+?)"', text)
  if near:
    return f'the config has no field {near[2]!r}; did you mean {near[1]!r}?'
  if isinstance(error, KeyError | AttributeError):
    name = text.strip('\'"')
    return f'the config has no field {name!r}'
  if isinstance(error, OSError):
    return f'--config: {lines[-1]}'
  if any(line.startswith('Traceback') for line in lines):
    return '--config: ' + re.sub(r'^[\w.]+: ', '', lines[-1])
  return ' '.join(lines) or type(error).__name__


def _let_configs_import_common(argv):
  """Puts the folder above `configs/` on the path, from wherever one starts."""
  for i, argument in enumerate(argv):
    name, _, value = argument.lstrip('-').partition('=')
    if name == 'config':
      value = value or (argv[i + 1] if i + 1 < len(argv) else '')
      path = pathlib.Path(value.partition(':')[0]).resolve()
      sys.path.insert(0, str(path.parent.parent))


def devices_of_cpu(asked, parts, environ=os.environ):
  """Into how many devices to divide the CPU.

  XLA for CPUs computes a convolution in one thread, whatever there is: on N
  cores N devices may be up to N times as fast.

  Args:
    asked: a number; 0 for as many as have a core and divide `parts` evenly (one
      for each of several processes, which may be on one machine); or None.
    parts: what a call is divided into at most: its episodes, or chunks of them.
    environ: of the process.

  Returns:
    int, or None for what XLA_FLAGS say.

  Raises:
    core.BadInput: for a number below 0.
  """
  if asked is None:
    return None
  if asked < 0:
    raise core.BadInput(
      f'--cpu_devices={asked}: expected a number of devices, or 0 for as many '
      'as there are cores'
    )
  if asked:
    return asked
  tasks = [
    environ.get(n) for n in ('JAX_NUM_PROCESSES', 'SLURM_STEP_NUM_TASKS')
  ]
  if any(count not in (None, '', '1') for count in tasks):
    return 1
  return max(n for n in range(1, cores() + 1) if parts % n == 0)


def cores(quota=QUOTA):
  """How many this process may use, in a container too."""
  if hasattr(os, 'sched_getaffinity'):  # not everywhere
    count = len(os.sched_getaffinity(0))
  else:
    count = os.cpu_count() or 1
  try:
    allowed, period = pathlib.Path(quota).read_text().split()
  except (OSError, ValueError):
    return count
  if allowed == 'max':
    return count
  return max(1, min(count, int(allowed) // int(period)))


def set_up(several=False, cpu_devices=None):
  """Logging to stderr and a persistent cache of compiled programs.

  Args:
    several: join other processes if the environment names any.
    cpu_devices: devices that share the cores of the CPU, or None for what
      XLA_FLAGS say.
  """
  # Imported late: flags must fail fast, and before a backend is chosen.
  import jax

  if cpu_devices:
    jax.config.update('jax_num_cpu_devices', cpu_devices)
  logging.set_verbosity(logging.INFO)
  logging.use_absl_handler()
  handler = logging.get_absl_handler()
  handler.setFormatter(
    python_logging.Formatter('%(asctime)s %(message)s', '%H:%M:%S')
  )
  # JAX tells at INFO which accelerators it did not find.
  python_logging.getLogger('jax').setLevel(python_logging.WARNING)
  if 'JAX_COMPILATION_CACHE_DIR' not in os.environ:
    root = os.environ.get('XDG_CACHE_HOME') or '~/.cache'
    path = pathlib.Path(root).expanduser() / 'hyperudl' / 'xla'
    jax.config.update('jax_compilation_cache_dir', str(path))
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 1.0)
  if several:
    from hyperudl.core import distributed as processes

    processes.start()


def define_cpu_devices():
  """The flag of the mains that can compute on several devices."""
  flags.DEFINE_integer(
    'cpu_devices',
    None,
    'Devices that share the cores of a CPU; 0: one for each core, as many as '
    'divide the episodes of a call (one for an evaluator that polls). By '
    'default one, or what XLA_FLAGS say.',
  )


class Stop:
  """Remembers SIGTERM and Ctrl-C; a second Ctrl-C ends the process at once."""

  def __init__(self):
    self.code = 0

  def install(self):
    """Starts to listen; call in the main thread."""
    signal.signal(signal.SIGTERM, self._terminate)
    signal.signal(signal.SIGINT, self._interrupt)

  def _terminate(self, *unused):
    del unused
    self.code = TERMINATED

  def _interrupt(self, *unused):
    del unused
    if self.code:
      os._exit(INTERRUPTED)
    self.code = INTERRUPTED

  def __bool__(self):
    return bool(self.code)
