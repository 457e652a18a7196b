"""MT3 (Bartler et al. 2022, arXiv:2103.16201) in the terms of `udl`.

A learned network in place of a generated one, GroupNorm, one step of rate .1 on
all of its weights by BYOL, outer loss CE(v_1) + .1 BYOL. Gradients are clipped
to norm 1 tensor by tensor (10 in the paper). The paper trains a ResNet-26 on
CIFAR-10 for 34 GPU hours; this is its loop at a width that two cores train, on
N-way episodes of corrupted colour images with the classes of training
(`data.split_by=image`). Projector and predictor do not adapt. `mt3.py:joint` is
the control that tells what the steps are worth: the same losses, no step in
training, steps at test time (TTT).

  python -m hyperudl.train --config=configs/mt3.py:cifar10 --workdir=runs/mt3
  python -m hyperudl.train --config=configs/mt3.py:joint,cifar10 \
    --workdir=runs/mt3-joint
"""

from configs import udl


def get_config(arg=None):
  control, _, rest = (arg or '').partition(',')
  if control != 'joint':
    control, rest = '', arg
  config = udl.get_config(rest or 'cifar10').unlock()
  if 'shift=' not in (rest or ''):
    config.data.shift = 'color_training'
  config.data.augment = 'none'
  config.episode.proportions = 'balanced'
  config.learner.emit = 'none'
  config.learner.norm = 'group'
  config.learner.adapt = 'weights'
  config.learner.inner_steps = 1
  config.learner.inner_rate = 0.1
  config.learner.inner_rates = 'fixed'
  config.learner.inner_weight = 1.0
  config.learner.inner_norm = 'clip'
  config.learner.meta_grad = 'none' if control else 'full'
  config.learner.elbo = 'none'
  config.learner.ssl = 'byol'
  config.learner.critic = 'none'
  config.learner.gate = 'none'
  config.learner.cluster = 0
  config.learner.unadapted_weight = 0.0
  return config.lock()
