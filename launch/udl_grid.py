"""Trains and evaluates the variants of `udl`; resumable.

  python launch/udl_grid.py --runs=runs/grid --dataset=omniglot_background \
    --data_dir=DIR --seeds=0 --split=valid --variants=default,no_vae

Finished trainings and evaluations are not repeated. `launch/udl_tables.py`
makes the tables. Variants differ from `default` (configs/udl.py:inner) in what
is written here and share the vae and the frozen phase `base` of their seed.
"""

import argparse
import pathlib
import subprocess
import sys

_NO_VAE = {'elbo': 'none', 'ssl': 'none', 'gate': 'predictions'}
_NO_STEPS = {
  'inner_steps': 0,
  'elbo': 'none',
  'ssl': 'none',
  'critic': 'none',
}
VARIANTS = {
  'default': {},
  # Twins without any autoencoder in the inner loop.
  'no_vae': _NO_VAE,
  'steps_alone': {'cluster': 0},
  'steps_alone_no_vae': {'cluster': 0, **_NO_VAE},
  'cluster_alone': _NO_STEPS,
  'cluster_alone_no_vae': {**_NO_STEPS, 'gate': 'predictions'},
  'no_elbo': {'elbo': 'none'},
  'no_ssl': {'ssl': 'none'},
  'no_critic': {'critic': 'none'},
  'no_gate': {'gate': 'none'},
  'gate_predictions': {'gate': 'predictions'},
  'gate_elbo': {'gate': 'elbo'},
  'critic_elbo': {'critic': 'predictions+elbo'},
  'byol': {'ssl': 'byol'},
  'infonce': {'ssl': 'infonce'},
  'displacement': {'ssl': 'displacement'},
  'entropy': {'ssl': 'entropy'},
  'adapt_head': {'adapt': 'head'},
  'adapt_weights': {'adapt': 'weights'},
  'adapt_tokens': {'adapt': 'tokens'},
  'adapt_encoder': {'adapt': 'encoder', 'elbo': 'images'},
  'adapt_transform': {
    'adapt': 'transform',
    'elbo': 'images',
    'critic': 'predictions+elbo',
  },
  'adapt_film_transform': {
    'adapt': 'film+transform',
    'elbo': 'images',
    'critic': 'predictions+elbo',
  },
  'adapt_film_transform_no_vae': {'adapt': 'film+transform', **_NO_VAE},
  # The ELBO on features, as by default, and as an input of the critic alone.
  'adapt_film_transform_features': {'adapt': 'film+transform'},
  'adapt_film_transform_critic': {
    'adapt': 'film+transform',
    'elbo': 'none',
    'ssl': 'none',
    'critic': 'predictions+elbo',
  },
  'steps_1': {'inner_steps': 1},
  'steps_5': {'inner_steps': 5},
  'positive_rates': {'inner_rates': 'positive'},
  # The weights of the losses stay at their first values too.
  'fixed_rates': {'inner_rates': 'fixed'},
  'first_order': {'meta_grad': 'first_order'},
  'clip': {'inner_norm': 'clip'},
  # A variable that is the same for all episodes.
  'constant_film': {**_NO_STEPS, 'cluster': 0, 'start': 'learned'},
  'constant_transform': {
    **_NO_STEPS,
    'cluster': 0,
    'adapt': 'transform',
    'start': 'learned',
  },
  'learned_start': {'start': 'learned'},
  'chosen_start': {'start': 'chosen'},
  # Feed-forward adaptation, no gradient steps.
  'amortised_transform': {
    **_NO_STEPS,
    'cluster': 0,
    'adapt': 'transform',
    'start': 'amortised',
  },
  'amortised_film': {**_NO_STEPS, 'cluster': 0, 'start': 'amortised'},
  # Nothing is trained: gradient steps on the entropy at a fixed rate.
  'tent': {
    'elbo': 'none',
    'ssl': 'certainty',
    'critic': 'none',
    'gate': 'none',
    'cluster': 0,
    'inner_rates': 'fixed',
    'meta_grad': 'none',
  },
}
# K = 0 all the way, from scratch: as many steps as both phases together, the
# same under the families that phase `inner` meets, and other networks.
BASE_STEPS, INNER_STEPS = 4000, 800  # of configs/udl.py
CONTROLS = {
  'longer_base': {'steps': BASE_STEPS + INNER_STEPS},
  'wider_base': {
    'steps': BASE_STEPS + INNER_STEPS,
    'data.shift': 'phase2',
  },
  'no_emission': {'learner.emit': 'none'},
  'batch_statistics': {'learner.norm': 'batch'},
  # What the generator reads of each image beside its features.
  'pca_conditioning': {'learner.condition': 'pca'},
  'no_conditioning': {'learner.condition': 'none'},
}
# Both losses at once on one network, and steps at test time alone (TTT).
JOINT = {
  'ttt': {
    'steps': BASE_STEPS + INNER_STEPS,
    'data.shift': 'training',
    'learner.meta_grad': 'none',
    'learner.auxiliary_weight': 1.0,
    'learner.inner_rates': 'fixed',
    'learner.elbo': 'none',
    'learner.ssl': 'byol',
    'learner.critic': 'none',
    'learner.gate': 'none',
    'learner.cluster': 0,
  },
}
EVERY = (*VARIANTS, *CONTROLS, *JOINT)
SHIFTS = ('none', 'training', 'adaptation', 'shear')


def parse_arguments():
  """The options; ends with code 2 for a variant that does not exist."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--runs', default='runs/udl_grid', type=pathlib.Path)
  parser.add_argument('--dataset', default='glyphs')
  parser.add_argument('--data_dir', default='data_numpy_dir')
  parser.add_argument('--seeds', default='0')
  parser.add_argument(
    '--variants', default=','.join((*VARIANTS, *CONTROLS, *JOINT))
  )
  parser.add_argument('--split', default='valid', choices=('valid', 'test'))
  parser.add_argument('--shifts', default=','.join(SHIFTS))
  parser.add_argument('--proportions', default='dirichlet')
  parser.add_argument('--episodes', default=1000, type=int)
  parser.add_argument('--steps', default=0, type=int, help='of phase inner')
  pair = lambda text: tuple(text.split('=', 1))
  parser.add_argument(
    '--set',
    default=[],
    type=pair,
    action='append',
    metavar='FIELD=VALUE',
    help='a field of every training but that of the vae; repeat it for more',
  )
  parser.add_argument(
    '--measure',
    default=[],
    type=pair,
    action='append',
    metavar='FIELD=VALUE',
    help='an override of every evaluation, which becomes part of its tag',
  )
  arguments = parser.parse_args()
  unknown = set(arguments.variants.split(','))
  unknown -= {*EVERY}
  if unknown:
    parser.error(f'unknown variants: {", ".join(sorted(unknown))}')
  if any(len(pair) != 2 for pair in (*arguments.set, *arguments.measure)):
    parser.error('--set and --measure take FIELD=VALUE')
  return arguments


def call(module, *options):
  """Runs one of the mains; ends with its exit code if it fails."""
  command = [sys.executable, '-m', f'hyperudl.{module}', *options]
  code = subprocess.run(command, check=False).returncode
  if code:
    sys.exit(code)


def train(arguments, config, workdir, seed, **fields):
  """One training, or nothing if it is done."""
  if (workdir / 'DONE').exists():
    return
  call(
    'train',
    f'--config=configs/{config}{arguments.dataset}',
    f'--workdir={workdir}',
    f'--config.data.dir={arguments.data_dir}',
    f'--config.seed={seed}',
    *[f'--config.{name}={value}' for name, value in fields.items()],
  )


def protocol(proportions, measure):
  """What a tag says besides the shift: proportions and overrides (pairs)."""
  ends = [f'-{field.rpartition(".")[2]}{value}' for field, value in measure]
  return proportions + ''.join(ends)


def evaluate(arguments, workdir):
  """One result for each shift, or nothing where there is one."""
  for shift in arguments.shifts.split(','):
    tag = f'{shift}-{protocol(arguments.proportions, arguments.measure)}'
    done = workdir / 'eval' / f'{tag}-{arguments.split}.jsonl'
    if done.exists():
      continue
    call(
      'evaluate',
      f'--workdir={workdir}',
      '--once',
      f'--split={arguments.split}',
      f'--episodes={arguments.episodes}',
      f'--config.data.shift={shift}',
      f'--config.episode.proportions={arguments.proportions}',
      *[f'--config.{field}={value}' for field, value in arguments.measure],
      f'--tag={tag}',
    )


def main():
  """Upstreams of each seed, then every variant of it."""
  arguments = parse_arguments()
  for seed in arguments.seeds.split(','):
    place = lambda name, seed=seed: arguments.runs / f'{name}-{seed}'
    train(arguments, 'vae.py:', place('vae'), seed, steps=3000)
    upstream = {'init_from.vae': place('vae')}
    upstream.update(arguments.set)
    train(arguments, 'udl.py:base,', place('base'), seed, **upstream)
    for name in arguments.variants.split(','):
      if name in CONTROLS or name in JOINT:
        fields = {**upstream, **CONTROLS.get(name, {}), **JOINT.get(name, {})}
        if 'steps' in fields and arguments.steps:
          fields['steps'] = BASE_STEPS + arguments.steps
        phase = 'joint' if name in JOINT else 'base'
        train(arguments, f'udl.py:{phase},', place(name), seed, **fields)
        evaluate(arguments, place(name))
        continue
      fields = dict(arguments.set)
      fields.update({f'learner.{k}': v for k, v in VARIANTS[name].items()})
      if arguments.steps:
        fields['steps'] = arguments.steps
      fields['init_from.base'] = place('base')
      train(arguments, 'udl.py:inner,', place(name), seed, **fields)
      evaluate(arguments, place(name))


if __name__ == '__main__':
  main()
