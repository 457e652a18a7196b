"""Learners, one file each, found by name; there is no registry to edit."""

import difflib
import importlib
import inspect
import pathlib

from hyperudl.core import BadInput


def names():
  """All learners: the files of this folder."""
  files = pathlib.Path(__file__).parent.glob('*.py')
  return tuple(sorted(f.stem for f in files if f.stem != '__init__'))


def hyperparameters(name):
  """Hyperparameters of learner `name` with their defaults.

  Raises:
    BadInput: for an unknown name, listing the choices.
  """
  return {
    k: p.default
    for k, p in inspect.signature(_module(name).make).parameters.items()
    if k != 'way'
  }


def make(name, way, settings):
  """The learner `name` for `way` classes.

  Args:
    name: file name in this folder without its ending.
    way: N.
    settings: dict of hyperparameters for the learner's `make`.

  Raises:
    BadInput: for an unknown name, an unknown hyperparameter or a value that
      the learner refuses, listing the choices.
  """
  known = hyperparameters(name)
  for key in settings:
    if key not in known:
      near = difflib.get_close_matches(key, known, 1)
      hint = f'; did you mean {near[0]!r}?' if near else ''
      raise BadInput(
        f'learner {name!r} has no hyperparameter {key!r}{hint} '
        f'It has: {", ".join(sorted(known))}.'
      )
  try:
    return _module(name).make(way, **settings)
  except (TypeError, ValueError) as error:
    raise BadInput(f'learner {name!r}: {error}') from error


def filled(kind, make, way, settings):
  """A NamedTuple of the arguments of a `make`, its defaults filled in.

  Args:
    kind: the NamedTuple's class, with the arguments of `make` as fields.
    make: the learner's function.
    way: N.
    settings: dict, what is given; channels become a tuple.

  Raises:
    TypeError: for a setting that does not exist.
  """
  settings = {**make.__kwdefaults__, **settings}
  settings['channels'] = tuple(settings['channels'])
  return kind(way=way, **settings)


def divided(settings, function):
  """(the settings that a function takes, the others), two dicts."""
  taken = inspect.signature(function).parameters
  own = {k: v for k, v in settings.items() if k in taken}
  return own, {k: v for k, v in settings.items() if k not in taken}


def spelled_out(own, *bases, without=()):
  """The signature of a `make` that passes **settings on to others.

  Args:
    own: the function with **settings; what it names itself comes first.
    *bases: the functions that get them.
    without: names of the bases that `own` does not take.

  Returns:
    An `inspect.Signature` for `own.__signature__`, which `hyperparameters`
    reads.
  """
  named = {
    k: p
    for k, p in inspect.signature(own).parameters.items()
    if p.kind != p.VAR_KEYWORD
  }
  for base in bases:
    theirs = inspect.signature(base).parameters
    named |= {k: p for k, p in theirs.items() if k not in {*named, *without}}
  return inspect.Signature(named.values())


def _module(name):
  if name not in names():
    near = difflib.get_close_matches(name, names(), 1)
    hint = f' Did you mean {near[0]!r}?' if near else ''
    raise BadInput(
      f'there is no learner {name!r}.{hint} Choose one of {", ".join(names())}.'
    )
  return importlib.import_module(f'hyperudl.learners.{name}')
