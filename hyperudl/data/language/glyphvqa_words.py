"""Defines the colours of `glyphvqa`, and makes its questions and answers.

A pair is (attribute of the referent, number of its value, attribute asked for);
`values` has the names of the values of each attribute.
"""

from collections.abc import Iterable

Pair = tuple[str, int, str]
Values = dict[str, tuple[str, ...]]

POSITIONS = ('top left', 'top right', 'bottom left', 'bottom right')
TILES = {
  'red': (230, 60, 50),
  'green': (70, 190, 80),
  'blue': (70, 110, 240),
  'yellow': (240, 225, 70),
  'white': (245, 245, 245),
  'grey': (140, 140, 140),
  'cyan': (90, 220, 230),
  'pink': (250, 160, 200),
}
INKS = {
  'black': (0, 0, 0),
  'purple': (110, 0, 130),
  'orange': (255, 130, 0),
  'navy': (0, 0, 90),
  'brown': (100, 50, 10),
  'lime': (170, 255, 0),
  'maroon': (120, 0, 20),
  'teal': (0, 110, 110),
}
NAMED = {
  'position': 'place',
  'tile': 'color of the tile',
  'ink': 'color of the ink',
  'letter': 'letter',
}
# {a}: what is asked for, {r}: the referent.
WORDINGS = (
  'what is the {a} {r}',
  'tell me the {a} {r}',
  '{r} what is the {a}',
  'name the {a} {r}',
  'please give the {a} {r}',  # valid
  'say what the {a} {r} is',  # test
  '{r} which is the {a}',  # test
)
SPLIT_WORDINGS = {'train': (0, 1, 2, 3), 'valid': (4,), 'test': (5, 6)}
STATEMENTS = {
  'position': 'it is at the {}',
  'tile': 'the tile is {}',
  'ink': 'the ink is {}',
  'letter': 'the letter is {}',
}
REFERENTS = {
  'position': 'at the {}',
  'tile': 'on the {} tile',
  'ink': 'in {} ink',
  'letter': 'with the letter {}',
}


def referent(values: Values, pair: Pair) -> str:
  """Return the phrase that says which tile is meant."""
  attribute, value, _ = pair
  return REFERENTS[attribute].format(values[attribute][value])


def question(values: Values, pair: Pair, wording: int) -> str:
  """Return the question of a pair in one of `WORDINGS`."""
  template = WORDINGS[wording]
  return template.format(a=NAMED[pair[2]], r=referent(values, pair))


def statements(values: Values, pair: Pair, *, full: bool) -> list[str]:
  """Return the answers as statements, with the referent if `full`."""
  end = f' {referent(values, pair)}' if full else ''
  template = STATEMENTS[pair[2]]
  return [template.format(name) + end for name in values[pair[2]]]


def full_answers(
  values: Values, pair: Pair, wordings: Iterable[int]
) -> list[list[str]]:
  """Return full statements, then per wording the question with each answer."""
  forms = [statements(values, pair, full=True)]
  for wording in wordings:
    start = question(values, pair, wording)
    forms.append([f'{start} {name}' for name in values[pair[2]]])
  return forms
