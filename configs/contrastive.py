"""Configures the image-text encoder of the learners with language, on glyphvqa.

  python -m hyperudl.train --config=configs/contrastive.py \
    --workdir=runs/contrastive

Answers are statements, or question and answer in one string, that name the tile
they are about; none contains a pair that is held out for the test (see
`data/language/glyphvqa.py`). The images of an episode also come with the
questions of `language.asked` other tasks. If there are too many letters to ask
about all of them (`set=large`), captions (`language.captions`) state which
letter is where. Results: docs/results/guidance.md.
"""

import dataclasses

from configs import common
from hyperudl.data.language import task_set


def base(learner):
  """Return the defaults of a learner with language, on glyphvqa.

  Args:
    learner: name of the learner.
  """
  config = common.base(learner)
  config.data.dataset = 'glyphvqa'
  config.data.augment = 'none'
  config.episode.way = 8
  config.episode.shot = 8
  config.episode.query = 8
  config.eval.episodes = 108
  config.language = dataclasses.asdict(task_set.LanguageConfig())
  return config


def apply_variant(config, arg):
  """Apply a variant as `common.apply_variant` does, also `level` and `set`.

  `set` is the size of glyphvqa: with 'tiny' tasks have four answers, with
  'large' the embeddings of the encoder are wider.
  """
  rest = []
  for part in (arg or '').split(','):
    key, _, value = part.strip().partition('=')
    if key == 'set':
      config.language.size = value
      config.episode.way = 4 if value == 'tiny' else 8
      config.learner.width = 528 if value == 'large' else 300
    elif key == 'level':
      config.language.level = value
    elif part.strip():
      rest.append(part)
  return common.apply_variant(config, ','.join(rest))


def get_config(arg=None):
  config = base('contrastive')
  config.language.answers = 'mixed'
  config.language.asked = 24
  config.batch = 1
  config.steps = 2_000
  config.episode.shot = 1
  config.episode.query = 16
  config = apply_variant(config, arg)
  if config.language.size == 'large':
    config.language.captions = True
    config.steps = 16_000
  return config
