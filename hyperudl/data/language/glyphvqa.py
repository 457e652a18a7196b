"""`glyphvqa`: scenes of letters on tiles, and questions about them.

A scene is 2 x 2 tiles; each has a position, a tile colour, an ink colour and
a letter, no two of a scene alike in any of them. A semantic task is a referent
(one value of one attribute: "on the red tile") and an attribute that is asked
for ("what color is the ink"); a task is one wording of it. With answers
'bare' ("the ink is green") only the question tells which of the tiles is
meant; 'full' answers repeat the referent. Everything follows from the seed.

Splits by level: 'wording' asks the pairs of the training in wordings that
training never used; 'semantic' asks pairs of referent and attribute that
training never saw, in any wording. The scenes of valid and test are others,
written by other drawers. Letters are asked for where there are up to 8 of them;
where there are more, captions name them to the encoder (`World.captions`).
"""

import re
from typing import NamedTuple

import numpy as np

from hyperudl import core
from hyperudl.data import datasets
from hyperudl.data.language import glyphvqa_words
from hyperudl.data.language import task_set

LEVELS = ('wording', 'semantic')
ANSWERS = ('bare', 'full', 'mixed')
ATTRIBUTES = ('position', 'tile', 'ink', 'letter')
TILE_SIDE = 14  # pixels
NOISE = 0.03
TRAIN_DRAWERS = 15  # of 20; valid and test have the rest


class Size(NamedTuple):
  """How much of everything there is."""

  letters: int
  colours: int  # of tiles, and of inks
  scenes: int  # of train; valid and test have a third of it each
  rows: int  # images of a training task, half of them support


ROWS = 128  # images of a task of valid and test
SIZES = {
  'tiny': Size(4, 4, 1_500, 512),
  'small': Size(8, 6, 12_000, 2_048),
  'large': Size(360, 8, 30_000, 512),
}


def load(split, dir, *, size='small', level='wording', answers='bare', seed=0):
  """One split as a `vqa.TaskSet`.

  Args:
    split: 'train', 'valid', 'test' or 'all' (train and test).
    dir: folder for the cache of `glyphs`.
    size: 'tiny', 'small' or 'large'.
    level: what valid and test hold out, 'wording' or 'semantic'.
    answers: 'bare', 'full' or 'mixed' (each task twice: with statements and
      with question and answer in one string, both with the referent; what
      encoders are trained on).
    seed: of scenes, pairs and the images of each task.

  Raises:
    core.BadInput: an unknown choice.
  """
  for name, value, choices in (
    ('split', split, ('train', 'valid', 'test', 'all')),
    ('size', size, tuple(SIZES)),
    ('level', level, LEVELS),
    ('answers', answers, ANSWERS),
  ):
    if value not in choices:
      raise core.BadInput(
        f'glyphvqa: {name}={value!r}; expected one of {", ".join(choices)}'
      )
  world = World(dir, size, seed)
  splits = ('train', 'test') if split == 'all' else (split,)
  tasks, images = [], []
  for one in splits:
    scenes, pixels = world.scenes(one)
    start = sum(len(part) for part in images)
    images.append(pixels)
    rows = world.size.rows if one == 'train' else min(ROWS, world.size.rows)
    for pair, wording in world.tasks(one, level):
      tasks += world.task(scenes, start, rows, pair, wording, answers)
  total = (
    len(world.pairs)
    * len(glyphvqa_words.WORDINGS)
    * (2 if answers == 'mixed' else 1)
  )
  words = world.words()
  numbers = {word: i + 1 for i, word in enumerate(words)}
  longest = world.longest()

  def ids(text):
    row = [numbers[word] for word in text.split()]
    return np.array(row + [0] * (longest - len(row)), np.int32)

  def encode(task):
    return ids(task['question']), np.stack([ids(t) for t in task['prompts']])

  ways = max(len(world.values[asked]) for _, _, asked in world.pairs)
  made = task_set.make_task_set(
    np.concatenate(images), tasks, total, encode, words, ways
  )
  if split != 'train':
    return made
  pairs, rows = np.unique(made.groups, return_inverse=True)
  labels = [world.labels(scenes, world.pairs[pair]) for pair in pairs]
  made = made._replace(labels=np.stack(labels), label_rows=rows)
  if answers != 'mixed' or world.letters_are_asked():
    return made
  return made._replace(captions=world.captions(scenes, ids))


def records(tasks):
  """The tasks in the shape of Meta-VQA's JSON: question -> dict.

  Args:
    tasks: a `vqa.TaskSet` whose questions are all different.
  """
  found = {}
  for i, question in enumerate(tasks.names):
    names = tasks.answer_names[i]
    rows = {}
    for part in ('support', 'query'):
      pairs = zip(getattr(tasks, part)[i], getattr(tasks, f'{part}_y')[i])
      rows[part] = [[f'scene_{r:06d}', names[y]] for r, y in pairs if r >= 0]
    found[question] = {**rows, 'answers': list(names)}
  return found


class World:
  """Attributes, scenes and pairs of one size and seed."""

  def __init__(self, dir, size, seed):
    self.size, self.seed, self.dir = SIZES[size], seed, dir
    colours = self.size.colours
    glyphs = datasets.load('glyphs', 'all', dir)
    chosen, names = _letters(glyphs, self.size.letters)
    self.values = {
      'position': glyphvqa_words.POSITIONS,
      'tile': tuple(glyphvqa_words.TILES)[:colours],
      'ink': tuple(glyphvqa_words.INKS)[:colours],
      'letter': names,
    }
    # [letters, drawers, side, side], ink in [0, 1]; the mean of 2 x 2 pixels.
    ink = np.stack([glyphs.images[s : s + 20, :, :, 0] for s in chosen])
    ink = ink.reshape(*ink.shape[:2], TILE_SIDE, 2, TILE_SIDE, 2)
    self.glyphs = ink.mean(axis=(3, 5)) / 255
    self.pairs = self._pairs()
    order = np.random.default_rng([seed, 1]).permutation(len(self.pairs))
    known = round(0.75 * len(order))
    held = len(order) - known
    parts = np.split(order, [known, known + held // 3])
    self.of_split = dict(zip(('train', 'valid', 'test'), parts))

  def _pairs(self):
    """(attribute of the referent, its value, attribute asked for)."""
    asked = ATTRIBUTES if self.letters_are_asked() else ATTRIBUTES[:3]
    return [
      (a, value, b)
      for a in ATTRIBUTES
      for value in range(len(self.values[a]))
      for b in asked
      if b != a
    ]

  def scenes(self, split):
    """(i64[n, 4, 4] values by tile and attribute, uint8[n, 28, 28, 3])."""
    number = ('train', 'valid', 'test').index(split)
    rng = np.random.default_rng([self.seed, 2, number])
    count = self.size.scenes if split == 'train' else self.size.scenes // 3
    pick = lambda n: rng.random((count, n)).argsort(axis=1)[:, :4]
    positions = np.tile(np.arange(4), (count, 1))
    others = [pick(len(self.values[a])) for a in ATTRIBUTES[1:]]
    values = np.stack([positions, *others], axis=-1)
    drawers = (0, TRAIN_DRAWERS) if split == 'train' else (TRAIN_DRAWERS, 20)
    who = rng.integers(*drawers, size=(count, 4))
    ink = self.glyphs[values[..., 3], who][..., None]
    palette = lambda of: np.array(list(of.values()), np.float32) / 255
    back = palette(glyphvqa_words.TILES)[values[..., 1]][:, :, None, None]
    front = palette(glyphvqa_words.INKS)[values[..., 2]][:, :, None, None]
    tiles = (back + ink * (front - back)).astype(np.float32)
    side = TILE_SIDE
    tiles = tiles.reshape(count, 2, 2, side, side, 3).transpose(
      0, 1, 3, 2, 4, 5
    )
    image = tiles.reshape(count, 2 * side, 2 * side, 3)
    image += NOISE * rng.standard_normal(image.shape, np.float32)
    return values, np.clip(np.rint(255 * image), 0, 255).astype(np.uint8)

  def tasks(self, split, level):
    """(pair number, wording) of the tasks of a split."""
    if split == 'train' or level == 'wording':
      pairs = self.of_split['train']
      wordings = glyphvqa_words.SPLIT_WORDINGS[split]
    else:
      pairs = self.of_split[split]
      wordings = range(len(glyphvqa_words.WORDINGS))
    return [(int(pair), w) for pair in sorted(pairs) for w in wordings]

  def task(self, scenes, start, count, pair, wording, answers):
    """Dicts for `vqa.make_task_set`, of `count` scenes from row `start` on."""
    triple = self.pairs[pair]
    labels = self.labels(scenes, triple)
    rng = np.random.default_rng([self.seed, 3, pair, wording, start])
    rows = rng.permutation(np.flatnonzero(labels >= 0))[:count]
    pool = [(int(row) + start, int(labels[row])) for row in rows]
    question = self.question(triple, wording)
    number = pair * len(glyphvqa_words.WORDINGS) + wording
    task = {
      'question': question,
      'answers': list(self.values[triple[2]]),
      'support': pool[::2],
      'query': pool[1::2],
      'group': pair,
    }
    if answers != 'mixed':
      prompts = self.prompts(triple, answers)
      return [{**task, 'prompts': prompts, 'id': number}]
    return [
      {**task, 'prompts': prompts, 'id': 2 * number + kind}
      for kind, prompts in enumerate(self._full(triple, [wording]))
    ]

  def labels(self, scenes, triple):
    """i16[n]: the answer of each scene to one of `pairs`, -1 without one."""
    attribute, value, asked = triple
    here = scenes[..., ATTRIBUTES.index(attribute)] == value
    found = scenes[np.arange(len(scenes)), here.argmax(axis=1)]
    answers = found[:, ATTRIBUTES.index(asked)]
    return np.where(here.any(axis=1), answers, -1).astype(np.int16)

  def letters_are_asked(self):
    """Whether questions are about letters too: a task has up to 8 answers."""
    return len(self.values['letter']) <= 8

  def captions(self, scenes, encode):
    """`vqa.Captions`: which letter is where, in full answers of five forms.

    Nothing is said of a letter and a position (tile, ink) together where the
    question for the position of this letter is held out.

    Args:
      scenes: of `scenes`.
      encode: string -> i32[L].
    """
    trained = {self.pairs[pair] for pair in self.of_split['train']}
    labels, strings = [], []
    for triple in self._told():
      letters = self.labels(scenes, triple)
      known = [
        ('letter', letter, triple[0]) in trained
        for letter in range(len(self.values['letter']))
      ]
      labels.append(np.where(np.array(known)[letters], letters, -1))
      wordings = glyphvqa_words.SPLIT_WORDINGS['train']
      forms = self._full(triple, wordings)
      strings.append([[encode(text) for text in form] for form in forms])
    return task_set.Captions(np.array(strings), np.stack(labels))

  def _told(self):
    """What captions answer, as `pairs`."""
    if self.letters_are_asked():
      return []
    return [
      (a, value, 'letter')
      for a in ATTRIBUTES[:3]
      for value in range(len(self.values[a]))
    ]

  def _full(self, triple, wordings):
    """All answers: as statements, then behind the question in each wording."""
    forms = [self.prompts(triple, 'full')]
    for wording in wordings:
      question = self.question(triple, wording)
      forms.append([f'{question} {name}' for name in self.values[triple[2]]])
    return forms

  def referent(self, triple):
    attribute, value, _ = triple
    return glyphvqa_words.REFERENTS[attribute].format(
      self.values[attribute][value]
    )

  def question(self, triple, wording):
    asked = glyphvqa_words.NAMED[triple[2]]
    return glyphvqa_words.WORDINGS[wording].format(
      a=asked, r=self.referent(triple)
    )

  def prompts(self, triple, answers):
    """The answers as statements, 'bare' or 'full'."""
    told = glyphvqa_words.STATEMENTS[triple[2]]
    end = f' {self.referent(triple)}' if answers == 'full' else ''
    return [told.format(name) + end for name in self.values[triple[2]]]

  def _texts(self):
    every = range(len(glyphvqa_words.WORDINGS))
    for triple in (*self.pairs, *self._told()):
      for form in self._full(triple, every):
        yield from form

  def words(self):
    """Every word of every string, sorted."""
    return tuple(sorted({w for text in self._texts() for w in text.split()}))

  def longest(self):
    """Words of the longest string."""
    return max(len(text.split()) for text in self._texts())


def _letters(glyphs, count):
  """(first rows, words) of the letters: Latin capitals, then all others."""
  word = lambda name: re.sub(r'[^a-z0-9]+', '-', name.lower())
  plain = re.compile(r'LATIN CAPITAL LETTER [A-Z]$')
  numbers = range(len(glyphs.class_names))
  first = [i for i in numbers if plain.match(glyphs.class_names[i])]
  order = first + [i for i in numbers if i not in set(first)]
  names = [
    glyphs.class_names[i][-1].lower()
    if i in set(first)
    else word(glyphs.class_names[i])
    for i in order[:count]
  ]
  return [int(glyphs.starts[i]) for i in order[:count]], tuple(names)
