"""Disturbs trainings and damages files at random, and reports what came of it.

  python -m tests.campaign --kills=1000 --files=10000 --out=FOLDER

The kills (and other faults, see faults.py) hit small runs of three learners,
which must end with the bits of an undisturbed run. The files (see mutations.py)
are read by the commands, which must end well or in one line. Every trial
depends on --seed and its number alone, up to timing. FOLDER/trials.jsonl has a
line for each; the same command goes on after an interruption, and ends with
FOLDER/report.json. Exit code 1: a trial has failed.
"""

import argparse
import collections
import json
import os
import pathlib
import random
import resource
import shutil
import sys
import time

# Before JAX is imported: small programs on a CPU, compiled fast.
os.environ['JAX_PLATFORMS'] = 'cpu'
os.environ.setdefault(
  'XLA_FLAGS',
  '--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false',
)

from hyperudl.storage import metrics
from tests.campaign import learners
from tests.campaign import trials
from tests.testing import forking

MODULES = (
  *('hyperudl.train', 'hyperudl.evaluate', 'hyperudl.data.convert'),
  *('tests.testing.read_set', 'tests.campaign.learners'),
)


def parse(argv):
  parser = argparse.ArgumentParser('python -m tests.campaign')
  parser.add_argument('--kills', type=int, default=20)
  parser.add_argument('--files', type=int, default=300)
  parser.add_argument('--seed', type=int, default=0)
  parser.add_argument('--out', type=pathlib.Path, default='runs/campaign')
  return parser.parse_args(argv)


def main(argv):
  options = parse(argv)
  options.out.mkdir(parents=True, exist_ok=True)
  cache = (options.out / 'cache').absolute()
  os.environ['JAX_COMPILATION_CACHE_DIR'] = str(cache)
  os.environ['JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS'] = '0'
  for module in MODULES:
    forking.load(module)
  journal = options.out / 'trials.jsonl'
  bench = trials.Bench(options.out.absolute())
  # Not those of another seed, and not the last line if a kill cut it.
  done = {
    (row['kind'], row['number'])
    for row in metrics.read_jsonl(journal)
    if row['seed'] == options.seed
  }
  plan = [('kills', n) for n in range(0, options.kills, trials.KILLS_PER_RUN)]
  plan += [('file', n) for n in range(options.files)]
  for place, (kind, number) in enumerate(plan):
    if (kind, number) in done:
      continue
    generator = random.Random(f'{options.seed} {kind} {number}')
    start, cpu = time.monotonic(), _children_seconds()
    if kind == 'kills':
      count = min(trials.KILLS_PER_RUN, options.kills - number)
      learner = learners.LEARNERS[
        number // trials.KILLS_PER_RUN % len(learners.LEARNERS)
      ]
      row = bench.disturb(learner, count, generator)
    else:
      row = bench.damage(generator)
    row['seconds'] = round(time.monotonic() - start, 2)
    row['all_cpu_seconds'] = round(_children_seconds() - cpu, 2)
    row = {'kind': kind, 'number': number, 'seed': options.seed, **row}
    metrics.append_jsonl(journal, row)
    _show(place + 1, len(plan), row)
  return report(options, metrics.read_jsonl(journal))


def _children_seconds():
  usage = resource.getrusage(resource.RUSAGE_CHILDREN)
  return usage.ru_utime + usage.ru_stime


def _show(place, total, row):
  text = f'{place}/{total}  {row["kind"]} {row["number"]}  {row["what"]}'
  end = '\n' if row['problem'] else '\r'
  sys.stderr.write(f'{text[:70]:70} {row["problem"][:2000]}{end}')
  sys.stderr.flush()


def report(options, rows):
  """Write and print a summary; return the exit code."""
  rows = [row for row in rows if row['seed'] == options.seed]
  kinds = collections.defaultdict(list)
  for row in rows:
    kinds[row['what']].append(row)
  faults = collections.Counter(f for row in rows for f in row.get('faults', ()))
  summary = {
    'command': f'python -m tests.campaign --kills={options.kills} '
    f'--files={options.files} --seed={options.seed}',
    'faults': dict(sorted(faults.items())),
    'seconds': round(sum(row['seconds'] for row in rows)),
    'cpu_seconds': round(sum(row['all_cpu_seconds'] for row in rows)),
    'failed': [row for row in rows if row['problem']],
    'trials': {what: _summarize(kinds[what]) for what in sorted(kinds)},
  }
  text = json.dumps(summary, indent=2)
  (options.out / 'report.json').write_text(text + '\n')
  sys.stdout.write(f'{text}\n')
  if not summary['failed']:
    shutil.rmtree(options.out / 'trial', ignore_errors=True)
  return 1 if summary['failed'] else 0


def _summarize(rows):
  largest = lambda name: max((row.get(name, 0) for row in rows), default=0)
  codes = collections.Counter(str(row['code']) for row in rows)
  return {
    'trials': len(rows),
    'failed': sum(bool(row['problem']) for row in rows),
    'exit_codes': dict(sorted(codes.items())),
    'most_megabytes': largest('megabytes'),
    'most_cpu_seconds': largest('cpu_seconds'),
  }


if __name__ == '__main__':
  sys.exit(main(sys.argv[1:]))
