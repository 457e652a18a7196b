"""Makes the tasks `glyphvqa`: questions about scenes of letters on tiles.

A scene is 2 x 2 tiles. Each tile has a position, a tile colour, an ink colour
and a letter, and no two tiles of a scene share any of these. A pair is a
referent (one value of one attribute: "on the red tile") and another attribute,
which is asked for ("what is the color of the ink"); a task is a pair in one
wording. With answers 'bare' ("the ink is green") only the question says which
tile is meant; 'full' answers repeat the referent. Everything is a function of
the seed.

Valid and test have scenes of their own, by other drawers. With level 'wording'
they have the training pairs in wordings not used in training; with 'semantic'
they have pairs that no training task has, in any wording. Questions ask for
letters if there are at most 8 of them; if there are more, only captions name
letters, to train the encoder.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from hyperudl import core
from hyperudl.data.language import glyphvqa_words as words
from hyperudl.data.language import task_set
from hyperudl.data.language.glyphvqa_world import World

TEST_ROWS = 128  # images of a valid or test task, at most


def load(
  split: str, dir: str, config: task_set.LanguageConfig
) -> task_set.TaskSet:
  """Make the tasks of one split.

  Args:
    split: 'train', 'valid', 'test' or 'all' (train and test).
    dir: folder for the cache of `glyphs`.
    config: settings of the tasks.

  Raises:
    core.BadInput: an unknown split.
  """
  if split not in ('train', 'valid', 'test', 'all'):
    raise core.BadInput(
      f'glyphvqa: split={split!r}; expected one of train, valid, test, all'
    )
  world = World(dir, config.size, config.seed)
  tasks: list[dict[str, Any]] = []
  images: list[np.ndarray] = []
  for name in ('train', 'test') if split == 'all' else (split,):
    scenes, pixels = world.scenes(name)
    start = sum(len(part) for part in images)
    images.append(pixels)
    rows = world.size.rows
    rows = rows if name == 'train' else min(TEST_ROWS, rows)
    for pair, wording in world.tasks(name, config.level):
      pool = _pool(world, scenes, start, rows, pair, wording)
      tasks += _tasks_of(world, pool, pair, wording, config.answers)
  vocabulary, to_ids = _vocabulary(world)
  encode = lambda task: (
    to_ids(task['question']),
    np.stack([to_ids(text) for text in task['prompts']]),
  )
  total = len(world.pairs) * len(words.WORDINGS)
  loaded = task_set.make_task_set(
    np.concatenate(images),
    tasks,
    total * (2 if config.answers == 'mixed' else 1),
    encode,
    vocabulary,
    max(len(world.values[asked]) for _, _, asked in world.pairs),
  )
  if split != 'train':
    return loaded
  if config.answers == 'mixed' and not world.asks_for_letters:
    loaded = loaded._replace(captions=_captions(world, scenes, to_ids))
  pairs, label_rows = np.unique(loaded.groups, return_inverse=True)
  labels = [world.labels(scenes, world.pairs[pair]) for pair in pairs]
  return loaded._replace(labels=np.stack(labels), label_rows=label_rows)


def _pool(world, scenes, start, count, pair, wording):
  """Draw [(row, answer)] of `count` scenes; row `start` is the first scene."""
  labels = world.labels(scenes, world.pairs[pair])
  rng = np.random.default_rng([world.seed, 3, pair, wording, start])
  rows = rng.permutation(np.flatnonzero(labels >= 0))[:count]
  return [(int(row) + start, int(labels[row])) for row in rows]


def _tasks_of(world, pool, pair, wording, answers):
  """Return dicts for `task_set.make_task_set`: two if 'mixed', else one."""
  values, triple = world.values, world.pairs[pair]
  if answers == 'mixed':
    forms = words.full_answers(values, triple, [wording])
  else:
    forms = [words.statements(values, triple, full=answers == 'full')]
  number = pair * len(words.WORDINGS) + wording
  return [
    {
      'question': words.question(values, triple, wording),
      'answers': list(values[triple[2]]),
      'support': pool[::2],
      'query': pool[1::2],
      'group': pair,
      'prompts': prompts,
      'id': len(forms) * number + form,
    }
    for form, prompts in enumerate(forms)
  ]


def _captions(world, scenes, to_ids):
  """Return `task_set.Captions` that name letters, as full answers in 5 forms.

  A caption never joins a letter with a position (tile, ink) if the question
  about the position (tile, ink) of this letter is held out.
  """
  trained = {world.pairs[pair] for pair in world.pairs_of_split['train']}
  letters = range(len(world.values['letter']))
  labels, strings = [], []
  for pair in world.caption_pairs():
    letter = world.labels(scenes, pair)
    is_trained = np.array([('letter', i, pair[0]) in trained for i in letters])
    labels.append(np.where(is_trained[letter], letter, -1))
    wordings = words.SPLIT_WORDINGS['train']
    forms = words.full_answers(world.values, pair, wordings)
    strings.append([[to_ids(text) for text in form] for form in forms])
  return task_set.Captions(np.array(strings), np.stack(labels))


def _texts(world: World) -> Iterator[str]:
  wordings = range(len(words.WORDINGS))
  for pair in (*world.pairs, *world.caption_pairs()):
    for form in words.full_answers(world.values, pair, wordings):
      yield from form


def _vocabulary(world):
  """Return (sorted words, function string -> i32[L] padded with zeros)."""
  texts = [text.split() for text in _texts(world)]
  vocabulary = tuple(sorted({word for text in texts for word in text}))
  numbers = {word: i + 1 for i, word in enumerate(vocabulary)}
  longest = max(map(len, texts))

  def to_ids(text):
    ids = [numbers[word] for word in text.split()]
    return np.array(ids + [0] * (longest - len(ids)), np.int32)

  return vocabulary, to_ids
