"""Encodes images and strings with a CLIP model in a folder (extra `clip`).

The model has Hugging Face's format, `FlaxCLIPModel` of transformers 4: its
folder has config.json, weights (flax_model.msgpack, or those of torch if torch
is installed) and the tokenizer's files. Nothing is downloaded.

As in the original Meta-VQA, features are projected but not normalised, and
images are resized to the model's square with a bicubic filter, without a crop,
and normalised by CLIP's mean and standard deviation.
"""

from collections.abc import Callable
import json
import os
from typing import NamedTuple
import warnings
import zlib

from flax.traverse_util import flatten_dict
import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from hyperudl.core import BadInput
from hyperudl.data.datasets import image_file

# From Radford et al. 2021 (arXiv:2103.00020), RGB in 0..1; a folder's
# preprocessor_config.json takes precedence.
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
WEIGHTS = ('flax_model.msgpack', 'model.safetensors', 'pytorch_model.bin')
TOKENIZER = (('tokenizer.json',), ('vocab.json', 'merges.txt'))


class Clip(NamedTuple):
  """A CLIP model as pure functions.

  size:        pixels per side
  width:       e, the number of features
  fingerprint: a checksum of the model's files
  tokenize:    list of n strings -> (i32[n, L], i32[n, L]), ids and mask
  texts:       (ids, mask) -> f32[n, e]
  images:      f32[n, size, size, 3] in 0..1 -> f32[n, e]
  """

  size: int
  width: int
  fingerprint: int
  tokenize: Callable
  texts: Callable
  images: Callable


def load(folder: str) -> Clip:
  """Load the CLIP model in a folder.

  Raises:
    BadInput: transformers or a file is missing, or cannot be read as CLIP.
  """
  weights = _check(folder)
  try:
    with warnings.catch_warnings():
      warnings.simplefilter('ignore')
      import transformers
      from transformers import CLIPTokenizerFast
      from transformers import FlaxCLIPModel
  except ImportError as error:
    raise BadInput(
      f'CLIP needs transformers 4.57 ({error}): pip install -e .[clip]'
    ) from None
  transformers.utils.logging.set_verbosity_error()
  try:
    # With _do_init missing weights would silently be random.
    model, params = FlaxCLIPModel.from_pretrained(
      folder,
      local_files_only=True,
      from_pt=weights != WEIGHTS[0],
      _do_init=False,
    )
    tokenizer = CLIPTokenizerFast.from_pretrained(folder, local_files_only=True)
  # Parsers of damaged files raise all kinds of exceptions.
  except Exception as error:
    text = ' '.join(str(error).split())[:200]
    raise BadInput(
      f'{folder}: not read as a CLIP model ({type(error).__name__}: {text})'
    ) from None
  missing = model.required_params - flatten_dict(params).keys()
  if missing:
    raise BadInput(
      f'{folder}/{weights}: has no {"/".join(min(missing))}, and '
      f'{len(missing) - 1} more are missing; a whole CLIP model is needed'
    )
  return _functions(folder, weights, (model, params), tokenizer)


def _check(folder):
  """Return the name of the weights file; BadInput if something is missing."""
  exists = lambda name: os.path.exists(os.path.join(folder, name))
  weights = [name for name in WEIGHTS if exists(name)]
  has_tokens = any(all(map(exists, names)) for names in TOKENIZER)
  if not exists('config.json') or not weights or not has_tokens:
    raise BadInput(
      f'{folder}: expected config.json, one of {", ".join(WEIGHTS)}, and '
      'tokenizer.json or vocab.json with merges.txt, as Hugging Face saves '
      'them; --model is the folder of a CLIP model'
    )
  return weights[0]


def _functions(folder, weights, net, tokenizer):
  (model, params), (mean, std) = net, _normalisation(folder)
  length = model.config.text_config.max_position_embeddings

  def tokenize(strings):
    tokens = tokenizer(
      list(strings),
      padding='max_length',
      truncation=True,
      max_length=length,
      return_tensors='np',
    )
    names = 'input_ids', 'attention_mask'
    return tuple(tokens[name].astype(np.int32) for name in names)

  @jax.jit
  def texts(params, ids, mask):
    with jax.default_matmul_precision('float32'):
      return model.get_text_features(ids, mask, params=params)

  @jax.jit
  def images(params, x):
    x = jnp.transpose((x - mean) / std, (0, 3, 1, 2))
    with jax.default_matmul_precision('float32'):
      return model.get_image_features(x, params=params)

  return Clip(
    model.config.vision_config.image_size,
    model.config.projection_dim,
    zlib.crc32(mean.tobytes() + std.tobytes(), _fingerprint(folder, weights)),
    tokenize,
    lambda ids, mask: texts(params, ids, mask),
    lambda x: images(params, x),
  )


def _normalisation(folder):
  path = os.path.join(folder, 'preprocessor_config.json')
  if not os.path.exists(path):
    return np.float32(MEAN), np.float32(STD)
  try:
    with open(path, encoding='utf-8') as file:
      values = json.load(file)
    return np.float32(values['image_mean']), np.float32(values['image_std'])
  except (OSError, ValueError, TypeError, KeyError) as error:
    raise BadInput(
      f'{path}: expected image_mean and image_std ({error}); remove the file '
      "for CLIP's own"
    ) from None


def _fingerprint(folder, weights):
  """Return a checksum of the model's config and weights files."""
  checksum = 0
  for name in ('config.json', weights):
    with open(os.path.join(folder, name), 'rb') as file:
      while block := file.read(1 << 24):
        checksum = zlib.crc32(block, checksum)
  return checksum


def pixels(path: str, size: int) -> np.ndarray:
  """Read one image file as f32[size, size, 3] in 0..1.

  Raises:
    BadInput: not an image, or a damaged one.
  """
  with image_file.without_warnings():
    image = Image.fromarray(image_file.read(path, gray=False))
  image = image.resize((size, size), Image.Resampling.BICUBIC)
  return np.asarray(image, np.float32) / 255


def find_images(folder: str) -> dict[str, str]:
  """Return {file name without its ending: path} of all images in a folder."""
  paths: dict[str, str] = {}
  for place, _, names in sorted(os.walk(folder)):
    for name in sorted(names):
      stem, end = os.path.splitext(name)
      if end.lower() in image_file.endings():
        paths.setdefault(stem, os.path.join(place, name))
  return paths
