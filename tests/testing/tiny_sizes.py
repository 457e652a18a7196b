"""Hyperparameters with which learners compile in seconds, by learner."""

HYPERTRANSFORMER = {
  'channels': 3,
  'depth': 2,
  'embedding': 4,
  'layers': 1,
  'features': 3,
  'heads': 2,
  'shared_dim': 4,
}
HEAD_GENERATOR = {
  'channels': (6, 6),
  'hidden': 16,
  'warmup_steps': 0,
  'switch_steps': 0,
}
TOWERS = {
  'vocabulary': 32,
  'width': 10,
  'hidden': (16,),
}
HYPERNET = {
  **TOWERS,
  'inner_width': 8,
  'adapter': 6,
  'latent': 4,
  'decoder': (8,),
  'inner_steps': 3,
}
DIFFUSION = {
  'denoiser': (8,),
  'timesteps': 8,
  'sampler_steps': 4,
  'ema': 0.9,
}
UDL = {
  'channels': (4, 6),
  'width': 8,
  'layers': 1,
  'heads': 2,
  'trunk': (4,),
  'vae_latent': 3,
  'vae_hidden': (8,),
}
HVAE = {**HYPERNET, 'hvae_latent': 3, 'hvae_hidden': (6,)}
TINY = {
  'baseline': {'kind': 'simpleshot'},
  'contrastive': {**TOWERS, 'inner': 8},
  'hypernet': HYPERNET,
  'hvae': {**HVAE, 'hvae_steps': 3},
  'hyperclip': {**HVAE, 'encoder': (8,), 'guidance_steps': 3},
  'hyperldm': {**HVAE, **DIFFUSION},
  'protonet': {'channels': (6, 6)},
  'hallucination': {
    'channels': (6, 6),
    'count': 3,
    'hidden': 8,
    'noise_size': 2,
  },
  'maml': {'channels': (6, 6), 'inner_steps': 2},
  'hypermaml': HEAD_GENERATOR,
  'bayeshmaml': HEAD_GENERATOR,
  'caml': {
    **{'channels': (6, 6), 'width': 48, 'label_width': 24, 'layers': 2},
  },
  'hypershot': {'channels': (6, 6), 'hidden': 16, 'target': (8,)},
  'vae': {'latent': 4, 'hidden': (16,), 'beta_steps': 5},
  'hypertransformer': HYPERTRANSFORMER,
  'continual': {**HYPERTRANSFORMER, 'tasks': 2},
  'udl': {**UDL, 'inner_steps': 2},
  'udl_original': {
    'latent': 24,
    'vae_width': 8,
    'rows': 16,
    'head_hidden': 8,
    'hidden': (6,),
    'inner_steps': 2,
    'inner_batch': 6,
  },
}
