"""Configures UDL as its authors built it: four classes, VAE codes, no labels.

The settings are those of the experiments in their repository: 130 outer steps
of one batch of 16, Adam 1e-5, 3 inner steps. The autoencoder is trained first,
in a separate run:

  python -m hyperudl.train --config=configs/vae.py:mnist,way=4 \
    --config.learner.architecture=residual --config.learner.latent=128 \
    --config.learner.denoise=0 --workdir=runs/original-vae
  python -m hyperudl.train --config=configs/udl_original.py:mnist \
    --config.init_from.vae=runs/original-vae --workdir=runs/original

`accuracy_legacy` assigns outputs to classes on the images that are scored, as
in the original; random predictions reach .43 in this metric.
"""

from configs import common


def get_config(arg=None):
  config = common.base('udl_original')
  config.batch = 1
  config.steps = 130
  config.log_steps = 10
  config.checkpoint_steps = 130
  # The support plays the role of a data set: C and inner batches come from it.
  config.episode.way = 4
  config.episode.query = 4
  config.episode.unlabelled = 15
  config.data.augment = 'none'
  config.optimizer.learning_rate = 1e-5
  config.optimizer.schedule = 'constant'
  config.init_from.vae = ''
  return common.apply_variant(config, arg)
