"""Defines the hyperparameters of `udl` and refuses bad combinations."""

import dataclasses
from typing import Literal

from hyperudl.core import hyperparameters
from hyperudl.core.hyperparameters import field
from hyperudl.learners.udl import fast_weights
from hyperudl.learners.udl import inner_losses
from hyperudl.nets import backbones
from hyperudl.nets import label_encodings

NORMS = ('layer', 'group', 'batch', 'domain')


@dataclasses.dataclass(frozen=True)
class Config:
  """Hyperparameters of `udl`."""

  way: int = field(5, at_least=1)  # N, from episode.way
  varies: bool = False  # see `learners.make`
  # Which parameters are trained, see the docstring of `udl`.
  phase: Literal['base', 'inner', 'joint'] = 'joint'
  # 'clusters' uses no labels at all, see `cluster_setting`.
  setting: Literal['classes', 'clusters'] = 'classes'

  # The target network and the hypernetwork that generates it.
  backbone: backbones.Backbone = 'conv_stride2'
  channels: tuple[int, ...] = field((32, 32, 64), at_least=1)  # of its blocks
  # 'batch': statistics of the current images, which is transductive; 'domain':
  # labelled images are normalised by their own statistics, all other images by
  # those of the unlabelled ones.
  norm: Literal[NORMS] = 'domain'  # type: ignore[valid-type]
  # Whose statistics normalise queries with norm='domain'; their own are a
  # transductive control, which needs no unlabelled images.
  query_statistics: Literal['unlabelled', 'queries'] = 'unlabelled'
  # 'none': learned weights and class means as prototypes (an ablation).
  emit: Literal['all', 'none'] = 'all'
  # How kernels are cut into weight tokens, see `ops/weight_tokens.py`.
  allocation: Literal['output', 'spatial'] = 'output'
  strength: float = 0.1  # initial size s of the generated weight updates
  width: int = field(64, at_least=1)  # of the transformer, a multiple of heads
  layers: int = field(2, at_least=0)
  heads: int = field(4, at_least=1)
  # Channels of the CNN that computes image tokens; (): only the posterior.
  trunk: tuple[int, ...] = field((16, 32, 32), at_least=1)
  # Vectors of labels in tokens; those other than 'learned' are for any number
  # of classes up to 20, see `nets/label_encodings.py`.
  label_encoding: label_encodings.Kind = 'learned'
  # Whether the posterior of the frozen vae is an input of image tokens.
  condition: Literal['posterior', 'none'] = 'posterior'
  vae_latent: int = field(24, at_least=1)  # of the frozen vae
  vae_hidden: tuple[int, ...] = field((256, 128), at_least=1)

  # The unsupervised inner loop.
  # What v consists of: one or several of `fast_weights.PARTS`, joined by +.
  adapt: str = 'film'
  inner_steps: int = field(3, at_least=0)  # K
  # 'features': ELBO of a small VAE on the CNN's features; 'shift': ELBO of the
  # images with a shift phi after the frozen vae's decoder, see `shift`; needs
  # adapt='shift' or 'encoder'.
  elbo: inner_losses.Elbo = 'features'
  ssl: str = 'geometry'  # 'none', or self-supervised losses joined by +
  critic: inner_losses.Critic = 'predictions'  # input of a learned loss
  # Inputs of the gates that scale the adaptation, see `gates`.
  gate: Literal['none', 'elbo', 'predictions', 'predictions+elbo'] = (
    'predictions+elbo'
  )
  # Iterations of a soft k-means of the unlabelled features around the
  # prototypes, after the steps.
  cluster: int = field(3, at_least=0)
  # Initial alpha; for 'shift', multiplied by `shift_transform.RATES`.
  inner_rate: float = 0.3
  # 'learned': alpha and the weights of losses, including their signs.
  inner_rates: Literal['learned', 'fixed'] = 'learned'
  # Initial weight of ELBO and SSL, learned unless inner_rates='fixed'.
  inner_weight: float = 0.1
  inner_norm: Literal['none', 'clip', 'unit'] = 'unit'  # of inner gradients
  # 'first_order': stop the outer gradient at the inner gradients (the critic
  # and the weights of losses then get none); 'none': no outer gradient through
  # the inner loop, so that it acts only at test time.
  meta_grad: Literal['full', 'first_order', 'none'] = 'full'
  # Controls in evaluation: steps in the opposite or in random directions.
  direction: Literal['learned', 'flipped', 'random'] = 'learned'
  # Initial v. 'learned': a learned one for all episodes; with inner_steps=0
  # this is a control whose v depends on no image.
  start: Literal['identity', 'learned'] = 'identity'
  # Where phi starts: at the best of `shift.CANDIDATES`, or at the identity.
  shift_start: Literal['candidates', 'identity'] = 'candidates'
  # Images that phi is inferred from, the first unlabelled ones; 0: all.
  shift_images: int = field(8, at_least=0)
  # Whether the CNN reads a blend of images that may be noisy and of what the
  # frozen vae makes of them, see `shift.blend`; needs elbo='shift'.
  blend: bool = False

  # The outer loss.
  # Outer steps over which the weight of losses of earlier inner steps falls to
  # 0; with 0 only the loss after the last step counts.
  multi_step: int = field(0, at_least=0)
  unadapted_weight: float = field(0.25, at_least=0, at_most=1)  # w_0 of 'joint'
  auxiliary_weight: float = field(0.1, at_least=0)  # of ELBO and SSL at v_0

  # Additional metrics of evaluation.
  single: bool = False  # accuracy_single: adapt to each query by itself; slow
  ensemble: int = field(0, at_least=0)  # accuracy_ensemble: number of networks
  # accuracy_finetuned: number of Adam steps on all weights (HyperFast).
  finetune_steps: int = field(0, at_least=0)
  finetune_rate: float = field(1e-3, above=0)

  def __post_init__(self):
    hyperparameters.check(self)
    backbones.make(self.backbone, self.channels, self.norm)
    if self.width % self.heads:
      raise ValueError(
        f'width = {self.width} must be a multiple of heads = {self.heads}'
      )
    self._check_adapted()
    label_encodings.check(self.label_encoding, self.way, self.width)
    if self.varies and (self.setting != 'classes' or self.norm == 'batch'):
      raise ValueError(
        'episodes of any size (episode.way_range, .shot_range) need setting = '
        "'classes' and a norm other than 'batch', not "
        f'{self.setting!r} and {self.norm!r}'
      )
    own = self.query_statistics == 'queries'
    if own and (self.norm != 'domain' or self.setting != 'classes'):
      raise ValueError(
        "query_statistics = 'queries' needs norm = 'domain' and setting = "
        f"'classes', not {self.norm!r} and {self.setting!r}"
      )
    unnamed = self.single or self.ensemble or self.finetune_steps
    if self.setting == 'clusters' and unnamed:
      raise ValueError(
        'single = True adapts to one query, ensemble and finetune_steps need '
        "names of classes, and setting = 'clusters' has clusters without any: "
        'set single=False, ensemble=0 and finetune_steps=0'
      )

  def _check_adapted(self):
    parts = fast_weights.parse(self.adapt)
    inner_losses.active(self)  # refuses unknown names
    if 'shift' in parts and self.setting == 'clusters':
      raise ValueError(
        "adapt = 'shift' moves prototypes of labelled images, and setting = "
        "'clusters' has none: choose another adapt"
      )
    if self.blend and not ('shift' in parts and self.elbo == 'shift'):
      raise ValueError(
        "blend = True needs the shift's ELBO: set adapt='shift' and "
        f"elbo='shift', not {self.adapt!r} and {self.elbo!r}"
      )
    unused = {'hyper', 'encoder'} & set(parts)
    if unused and self.emit == 'none':
      raise ValueError(f"emit = 'none' has no {unused.pop()!r} to adapt")
    if 'encoder' in unused and self.condition == 'none':
      raise ValueError(
        "condition = 'none' reads no posterior, so that adapt = 'encoder' "
        "would do nothing: set condition='posterior'"
      )
    if self.inner_steps:
      self._check_reach(parts)

  def _check_reach(self, parts):
    """Refuse parts of v that no loss reaches, and an ELBO that reaches none."""
    active = inner_losses.active(self).values()
    reached = {
      part for loss in active for part in fast_weights.REACH[loss.needs]
    }
    if self.elbo == 'shift' and not {'shift', 'encoder'} & set(parts):
      raise ValueError(
        "elbo = 'shift' has no gradient with respect to adapt = "
        f'{self.adapt!r}: the frozen vae never reads the adapted network. Use '
        "elbo='features', or adapt='shift' or 'encoder'"
      )
    for part in parts:
      if part not in reached:
        raise ValueError(
          f'no inner loss reaches adapt = {part!r}: elbo = {self.elbo!r}, ssl '
          f'= {self.ssl!r}, critic = {self.critic!r}; choose '
          "elbo='features', another ssl or a critic, or inner_steps=0"
        )
