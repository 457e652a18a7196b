"""Configures the variational autoencoder of `udl`, on clean training images.

Its encoder reads them with noise, and the decoder returns the clean ones.
Layers 784-256-128-24, batches of 256 images and Adam 1.5e-3 as in our
prototype. Expected on 28x28 pixels: squared error about 11 per image, all
latents active.

  python -m hyperudl.train --config=configs/vae.py:glyphs --workdir=runs/vae
"""

from configs import common


def get_config(arg=None):
  config = common.base('vae')
  config.steps = 6_000
  config.batch = 1
  config.strategy = 'vmap'  # weights are shared: one large matrix product
  config.log_steps = 200
  config.checkpoint_steps = 2_000
  # One "episode" is a batch of 16 x (8 + 8) = 256 clean images.
  config.episode.way = 16
  config.episode.shot = 8
  config.episode.query = 8
  config.optimizer.learning_rate = 1.5e-3
  config.learner.denoise = 1.0
  config.learner.beta_steps = common.of_steps(config, 2, 3)
  config.eval.episodes = 100
  return common.apply_variant(config, arg)
