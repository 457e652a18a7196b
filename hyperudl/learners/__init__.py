"""Learners, one file each, found by name; there is no registry to edit."""

import difflib
import importlib
import inspect
import pathlib

from hyperudl import core
from hyperudl.ops import losses


def names():
  """All learners: the files and folders here without a leading underscore."""
  here = pathlib.Path(__file__).parent
  found = {path.stem for path in here.glob('*.py')}
  found |= {path.parent.name for path in here.glob('*/__init__.py')}
  return tuple(sorted(name for name in found if not name.startswith('_')))


def hyperparameters(name):
  """Hyperparameters of learner `name` with their defaults.

  Raises:
    core.BadInput: for an unknown name, listing the choices.
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
    core.BadInput: for an unknown name, an unknown hyperparameter or a value
      that the learner refuses, listing the choices.
  """
  known = hyperparameters(name)
  for key in settings:
    if key not in known:
      near = difflib.get_close_matches(key, known, 1)
      hint = f'; did you mean {near[0]!r}?' if near else ''
      raise core.BadInput(
        f'learner {name!r} has no hyperparameter {key!r}{hint} '
        f'It has: {", ".join(sorted(known))}.'
      )
  try:
    return _module(name).make(way, **settings)
  except (TypeError, ValueError) as error:
    raise core.BadInput(f'learner {name!r}: {error}') from error


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
    raise core.BadInput(
      f'there is no learner {name!r}.{hint} Choose one of {", ".join(names())}.'
    )
  return importlib.import_module(f'hyperudl.learners.{name}')


def make_learner(init, adapt, predict, loss=None, evaluate=None):
  """A `Learner` with the default loss and evaluation filled in.

  Args:
    init: (key, episode) -> params.
    adapt: (params, support, key, *, train) -> task.
    predict: (params, task, x, context) -> logits f32[Q, N].
    loss: or None for the cross-entropy of the adapted queries.
    evaluate: or None for accuracy, nll and probabilities of the queries.
  """

  def query_logits(params, episode, key, train):
    task = adapt(params, episode.support, key, train=train)
    return predict(params, task, episode.query.x, episode.query.context)

  def default_loss(params, episode, key, step):
    del step
    logits = query_logits(params, episode, key, True)
    value = losses.cross_entropy(logits, episode.query.y)
    return value, {'accuracy': losses.accuracy(logits, episode.query.y)}

  def default_evaluate(params, episode, key):
    logits = query_logits(params, episode, key, False)
    return losses.classification_metrics(logits, episode.query.y)

  return core.Learner(
    init, adapt, predict, loss or default_loss, evaluate or default_evaluate
  )
