"""Makes learners by name; each learner is a file or folder of this package."""

from collections.abc import Callable
import difflib
import importlib
import pathlib
from types import ModuleType
from typing import Any

from hyperudl import core
from hyperudl.core import episode_rules
from hyperudl.core import hyperparameters as hyperparameters_lib
from hyperudl.core.config import ConfigDict
from hyperudl.ops import losses


def names() -> tuple[str, ...]:
  """Return all learners: the files and folders here without an underscore."""
  here = pathlib.Path(__file__).parent
  stems = {path.stem for path in here.glob('*.py')}
  stems |= {path.parent.name for path in here.glob('*/__init__.py')}
  return tuple(sorted(name for name in stems if not name.startswith('_')))


def hyperparameters(name: str) -> dict[str, Any]:
  """Return the hyperparameters of learner `name` with their defaults.

  Raises:
    core.BadInput: for an unknown name, listing the choices.
  """
  return hyperparameters_lib.defaults(_module(name).Config)


def make(
  name: str, way: int, settings: dict[str, Any], varies: bool = False
) -> core.Learner:
  """Make the learner `name` for `way` classes.

  Args:
    name: one of `names()`.
    way: N, the number of classes.
    settings: hyperparameters that differ from the defaults of its `Config`.
    varies: whether an episode may have fewer classes than `way`, and rows
      without an image (y = `core.NO_IMAGE`); for learners that support it.

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
  module = _module(name)
  if varies:
    _check_varies(name)
    settings = {**settings, 'varies': True}
  try:
    return module.make(module.Config(way=way, **settings))
  except (TypeError, ValueError) as error:
    raise core.BadInput(f'learner {name!r}: {error}') from error


def check_run(config: ConfigDict) -> None:
  """Refuse a run whose episodes or number of steps its learner cannot take.

  A learner's module may define `SUPPORTS`, a set that may contain 'emit_from'
  (the learner can generate weights from the supports that `episode.emit_from`
  names), 'missing_classes' (a class may be without support examples),
  'features' (see `check_features`), 'varies' (episodes may differ in their
  classes and images, see `make`; its `Config` has the field `varies`), and a
  function `check_run(config)` with further checks of the run's config.

  Raises:
    core.BadInput: naming the field, its value and what to set instead.
  """
  name, module = config.learner.name, _module(config.learner.name)
  supports = getattr(module, 'SUPPORTS', frozenset())
  if config.episode.emit_from != 'own' and 'emit_from' not in supports:
    raise core.BadInput(
      f'config.episode.emit_from = {config.episode.emit_from!r} replaces the '
      f'supports that weights are generated from, and {name!r} does not read '
      f"it; {_supporting('emit_from')} do: set it to 'own'"
    )
  joint = config.data.support_query == 'joint'
  if joint and 'missing_classes' not in supports:
    raise core.BadInput(
      "config.data.support_query = 'joint' may leave a class without support, "
      f'which is for {_supporting("missing_classes")} alone, not for {name!r}: '
      "set it to 'disjoint'"
    )
  if episode_rules.varies(config.episode):
    _check_varies(name)
  if hasattr(module, 'check_run'):
    module.check_run(config)
  hyperparameters_lib.check_steps(
    module.Config, config.learner, config.steps, 'config.learner.'
  )


def check_features(name: str) -> None:
  """Refuse features f32[S, D] for a learner that needs images.

  Raises:
    core.BadInput: naming the learners that can take them.
  """
  if 'features' not in getattr(_module(name), 'SUPPORTS', frozenset()):
    raise core.BadInput(
      f'learner {name!r} needs images, and this data set has features; '
      f'{_supporting("features")} take them'
    )


def _check_varies(name):
  if 'varies' not in getattr(_module(name), 'SUPPORTS', frozenset()):
    raise core.BadInput(
      'config.episode.way_range and .shot_range are for '
      f'{_supporting("varies")}, not for {name!r}: leave both empty'
    )


def _supporting(feature):
  """Return the learners that support `feature`, in words."""
  modules = {name: _module(name) for name in names()}
  return ' and '.join(
    name
    for name, module in modules.items()
    if feature in getattr(module, 'SUPPORTS', frozenset())
  )


def make_learner(
  init: Callable,
  adapt: Callable,
  predict: Callable,
  loss: Callable | None = None,
  evaluate: Callable | None = None,
) -> core.Learner:
  """Return a `Learner`, with the default loss and evaluation where None.

  Args:
    init: (key, episode) -> params.
    adapt: (params, support, key, *, train) -> task.
    predict: (params, task, x, context) -> logits f32[Q, N].
    loss: (params, episode, key, step) -> (f32[], metrics); by default the
      cross-entropy of the queries after adaptation.
    evaluate: (params, episode, key) -> metrics; by default accuracy, nll and
      probabilities of the queries.
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


def _module(name: str) -> ModuleType:
  if name not in names():
    near = difflib.get_close_matches(name, names(), 1)
    hint = f' Did you mean {near[0]!r}?' if near else ''
    raise core.BadInput(
      f'there is no learner {name!r}.{hint} Choose one of {", ".join(names())}.'
    )
  return importlib.import_module(f'hyperudl.learners.{name}')
