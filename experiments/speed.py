"""Measure the speed of every learner, and print the tables of speed.

  python -m experiments.speed > docs/results/speed_tables.md
  python -m experiments.speed --compare=runs/speed --out=runs/speed-new
  python -m experiments.speed --accelerator --out=runs/accelerator

Run it on an idle machine. It writes one file of JSON lines for each program to
OUT; a program whose file exists is not measured again. --compare adds ratios to
the files of an earlier measurement. --accelerator measures MAML with grouped
convolutions and with ours, by the number of episodes; and MAML, ProtoNet, UDL
and the HyperTransformer, by that and by the number of updates in one dispatch.
--learners, --repeats, --batches and --filter (of the meta-gradients) measure
less.
"""

import argparse
from collections.abc import Iterable
import json
import os
import pathlib
import shutil
import subprocess
import sys

import jax

from experiments import tables

LEARNERS = (
  *('protonet', 'hallucination', 'maml', 'hypermaml', 'bayeshmaml'),
  *('hypertransformer', 'continual', 'vae', 'udl', 'udl_original'),
  *('contrastive', 'hypernet', 'hvae', 'hyperclip', 'hyperldm'),
)
_BENCHMARK = ['-m', 'hyperudl.benchmark']
# Column -> its field of a line and the number of digits.
_FORMULATIONS = {
  'episodes/s': ('episodes_per_second', 1),
  'ratio to naive': ('to_naive', 1),
  'GFLOP/s': ('gflops', 0),
  'GEMM peak beside it': ('gemm_peak_gflops', 0),
  'share': ('share_of_peak', 3),
  'MB': ('peak_mb', 0),
  'ratio to before': ('ratio', 2),
}
_LEARNERS = {
  'episodes/s': ('episodes_per_second', 1),
  'ms a call': ('ms_per_call', 2),
  'GFLOP/s': ('gflops', 1),
  'share of GEMM peak': ('share_of_peak', 3),
  'temporary MB': ('temporary_mb', 1),
  'RSS, MB': ('peak_rss_mb', 0),
  'ratio to before': ('ratio', 2),
}


def programs(arguments: argparse.Namespace) -> dict[str, list[str]]:
  """Return name -> what follows `python` for each program to measure."""
  batches = arguments.batches
  if arguments.accelerator:
    calls = f'--calls={arguments.calls}'
    suite = ['--suite=accelerator', f'--filter={arguments.filter}']
    return {'meta-gradient': [*_BENCHMARK, *suite]} | {
      name: [*_BENCHMARK, _config(name), f'--batches={batches}', calls]
      for name in arguments.learners
    }
  suite = ['--suite=maml', f'--filter={arguments.filter}']
  measured = {'meta-gradient': [*_BENCHMARK, *suite]}
  for name in arguments.learners:
    # Sixteen episodes of the original system would take a minute.
    sizes = '1' if name == 'udl_original' else batches
    measured[name] = [*_BENCHMARK, _config(name), f'--batches={sizes}']
  most = f'--batches={batches.split(",")[-1]}'
  for name in ('maml', 'protonet'):
    many = [_config(name), most]
    measured[f'{name}-2devices'] = [*_BENCHMARK, *many, '--devices=2']
    if _gpus() != 1:  # two processes need two GPUs, or none
      measured[f'{name}-2processes'] = ['hyperudl.benchmark', *many]
  return measured


def _config(name):
  # udl_original's own default is another data set.
  glyphs = ':glyphs' if name == 'udl_original' else ''
  return f'--config=configs/{name}.py{glyphs}'


def _gpus():
  if not shutil.which('nvidia-smi'):
    return 0
  command = ['nvidia-smi', '-L']
  done = subprocess.run(command, capture_output=True, text=True, check=False)
  return len(done.stdout.splitlines())


def measure(
  name: str, command: list[str], arguments: argparse.Namespace
) -> None:
  """Measure one program and write its lines, unless its file exists.

  Args:
    name: of the file.
    command: what follows `python`; if it begins with the name of a module, two
      processes run it.
    arguments: of the command line.

  Raises:
    SystemExit: with the exit code of a program that failed.
  """
  file = arguments.out / f'{name}.jsonl'
  if file.exists():
    return
  options = [f'--repeats={arguments.repeats}']
  before = arguments.compare and arguments.compare / file.name
  if before and before.exists():
    options.append(f'--compare={before}')
  start = [sys.executable]
  if command[0] != '-m':
    start = ['bash', 'launch/distributed.sh', '2']
  done = subprocess.run(
    [*start, *command, *options],
    stdout=subprocess.PIPE,
    text=True,
    env={**os.environ, 'PYTHON': sys.executable},
    check=False,
  )
  if done.returncode:
    sys.exit(done.returncode)
  # Libraries print lines of their own between processes.
  lines = [line for line in done.stdout.splitlines() if line[:1] == '{']
  part = file.with_suffix('.part')
  part.write_text('\n'.join(lines) + '\n')
  part.rename(file)


def page_text(lines: Iterable[dict]) -> str:
  """Return the tables of all lines: of meta-gradients, and of learners."""
  lines = list(lines)
  suites = [line for line in lines if 'formulation' in line]
  naive = {
    line['name'].removesuffix(' naive'): line['episodes_per_second']
    for line in suites
    if line['formulation'] == 'naive'
  }
  rows = []
  for line in suites:
    size = line['name'].split(' naive')[0].split(' slices')[0]
    speed = line['episodes_per_second']
    ratio = {'to_naive': speed / naive[size]} if size in naive else {}
    program = f'{line["strategy"]}, {line["formulation"]}'
    start = [line['name'], program, str(line['devices'])]
    rows.append([*start, *_cells(line | ratio, _FORMULATIONS)])
  header = ['row', 'strategy', 'devices', *_FORMULATIONS]
  parts = ['## Formulations of a meta-gradient', tables.markdown(header, rows)]
  rows = [
    [
      *(line['config'], line['name']),
      *(str(line['devices']), str(line['processes'])),
      *_cells(line, _LEARNERS),
    ]
    for line in lines
    if 'config' in line
  ]
  header = ['learner', 'row', 'devices', 'processes', *_LEARNERS]
  if rows:
    parts += ['## Learners', tables.markdown(header, rows)]
  return '\n\n'.join(parts) + '\n'


def _cells(line, columns):
  values = [(line.get(field), digits) for field, digits in columns.values()]
  return ['' if v is None else f'{v:.{digits}f}' for v, digits in values]


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
  """Return the options; exit with code 2 if they are not possible."""
  parser = argparse.ArgumentParser(
    prog='python -m experiments.speed',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  names = lambda text: text.replace(',', ' ').split()
  add = parser.add_argument
  add('--out', default='runs/speed', type=pathlib.Path)
  add('--compare', type=pathlib.Path, help='folder of an earlier time')
  add('--accelerator', action='store_true', help='see above')
  add('--cpu', action='store_true', help='--accelerator without one: a trial')
  add('--learners', type=names, help='NAME,NAME; default: all of them')
  add('--repeats', default=5, type=int)
  add('--batches', help='episodes of an update: 1,16 or, there, 1,16,64,256')
  add('--calls', default='1,8,32', help='of --accelerator: updates a dispatch')
  add('--filter', help='of the meta-gradients; default: second-order')
  arguments = parser.parse_args(argv)
  if (
    arguments.compare and arguments.compare.resolve() == arguments.out.resolve()
  ):
    parser.error(f'--compare and --out are both {arguments.out}: change one')
  if arguments.accelerator and not arguments.cpu and _is_cpu():
    parser.error('JAX finds no accelerator; --cpu measures the CPU')
  few = ['maml', 'protonet', 'udl', 'hypertransformer']
  defaults = {
    'learners': few if arguments.accelerator else list(LEARNERS),
    'batches': '1,16,64,256' if arguments.accelerator else '1,16',
    'filter': '' if arguments.accelerator else 'second-order',
  }
  for name, value in defaults.items():
    if getattr(arguments, name) is None:
      setattr(arguments, name, value)
  return arguments


def _is_cpu():
  return jax.default_backend() == 'cpu'


def main() -> None:
  """Measure what is missing and print the page."""
  arguments = parse_arguments()
  arguments.out.mkdir(parents=True, exist_ok=True)
  for name, command in programs(arguments).items():
    measure(name, command, arguments)
  files = sorted(arguments.out.glob('*.jsonl'))
  lines = [text for file in files for text in file.read_text().splitlines()]
  sys.stdout.write(
    '# Speed: tables\n\n'
    '**Every number behind [speed.md](speed.md), which explains the rows and '
    'what follows from\nthem.**\n\n'
    '    python -m experiments.speed > docs/results/speed_tables.md\n\n'
    + page_text(map(json.loads, lines))
  )


if __name__ == '__main__':
  main()
