"""What the scenes of `glyphvqa` are made of, and how it is asked for."""

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
