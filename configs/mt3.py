"""Configures MT3 (Bartler et al. 2022, arXiv:2103.16201) as a case of `udl`.

The network is learned, not generated, with GroupNorm; the inner loop is one
BYOL step of rate .1 on all of its weights; the outer loss is CE(v_1) + .1 BYOL.
The gradient of each tensor is clipped to norm 1 (10 in the paper). The paper
trains a ResNet-26 on CIFAR-10 for 34 GPU hours; this is the same loop with a
network that two CPU cores can train, on N-way episodes of corrupted colour
images whose classes also occur in training (`data.split_by=image`). Projector
and predictor do not adapt. `mt3.py:joint` is a control that shows the benefit
of the inner loop in training: the same losses, but steps only at test time
(TTT).

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
  config.learner.blend = False
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
