"""The image-text encoder of the learners with language, trained on glyphvqa.

  python -m hyperudl.train --config=configs/contrastive.py \
    --workdir=runs/contrastive

Answers are statements, or question and answer in one string, that name the
tile they speak of; the pairs that test asks for are in none of them. The images
of an episode are asked about by `language.asked` other tasks too, and captions
(`language.captions`) say which letter is where if these are too many to be
asked for (`set=large`). What it and the towers are worth:
docs/results/guidance.md.
"""

from configs import common


def add_language(config, answers='bare'):
  """Adds the tasks with language to what `common.base` returned.

  Args:
    config: unlocked.
    answers: 'bare', 'full' or 'mixed', see data/glyphvqa.py.
  """
  config.data.dataset = 'glyphvqa'
  config.data.augment = 'none'
  config.episode.way = 8
  config.episode.shot = 8
  config.episode.query = 8
  config.language = {
    'size': 'small',
    'level': 'wording',
    'answers': answers,
    'seed': 0,
    'asked': 0,
    'captions': False,
  }


def apply_language(config, arg):
  """`common.apply_variant` with the variant keys `level` and `set`.

  `set` is the size of glyphvqa; 'tiny' has tasks of four answers, 'large' an
  encoder of more numbers.
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


def add_towers(learner):
  """Sizes of the encoder, which every learner above it has to repeat."""
  learner.vocabulary = 512
  learner.width = 300
  learner.hidden = (192, 96)
  learner.grid = 2
  learner.inner = 96


def get_config(arg=None):
  config = common.base()
  add_language(config, 'mixed')
  config.language.asked = 24
  config.batch = 1
  config.steps = 2_000
  config.episode.shot = 1
  config.episode.query = 16
  config.eval.episodes = 108
  config.learner.name = 'contrastive'
  add_towers(config.learner)
  config.learner.scale = 10.0
  config = apply_language(config, arg)
  if config.language.size == 'large':
    config.language.captions = True
    config.steps = 16_000
  return config
