"""Prepares a command line for ml_collections, and explains its errors."""

from collections.abc import Sequence
import os
import pathlib
import re
import sys
import types


def config_folder() -> pathlib.Path:
  """Return the folder of the config files that come with the library.

  It is installed as `hyperudl/configs`, and stands beside `hyperudl/` in the
  repository.
  """
  library = pathlib.Path(__file__).parents[1]
  installed = library / 'configs'
  return installed if installed.is_dir() else library.parent / 'configs'


def config_names() -> tuple[str, ...]:
  """Return the names of the config files that come with the library."""
  names = {path.stem for path in config_folder().glob('*.py')}
  return tuple(sorted(names - {'common', '__init__'}))


def let_configs_be_imported() -> None:
  """Let `from configs import common` find the files of `config_folder`."""
  package = types.ModuleType('configs')
  package.__path__ = [str(config_folder())]
  sys.modules.setdefault('configs', package)


def expand_names(argv: Sequence[str]) -> list[str]:
  """Replace --config=NAME[:variant] by the path of the config of that name.

  Files of the user come first; what is neither stays as it is.
  """
  arguments = list(argv)
  for i, argument in enumerate(arguments):
    flag, equals, value = argument.partition('=')
    if flag.lstrip('-') != 'config' or not flag.startswith('-'):
      continue
    place = i if equals else i + 1
    value = value if equals else ''.join(arguments[place : place + 1])
    name, colon, variant = value.partition(':')
    if name in config_names() and not os.path.isfile(name):
      path = f'{config_folder() / name}.py{colon}{variant}'
      arguments[place] = f'{flag}={path}' if equals else path
  return arguments


def keep_last(argv: Sequence[str]) -> list[str]:
  """Drop each --config.field=value that a later one of the field replaces.

  ml_collections would join the values of a field that is a tuple. Of several
  --config=FILE the last stands where the first was, before all fields.
  """
  arguments: dict[str, list[str]] = {}
  rest = list(argv)
  while rest:
    words = [rest.pop(0)]
    name, equals, _ = words[0].lstrip('-').partition('=')
    is_field = words[0].startswith('-') and re.match(r'config(\.|$)', name)
    if is_field and not equals and rest and not rest[0].startswith('-'):
      words.append(rest.pop(0))  # --config.field value
    if name != 'config':
      arguments.pop(name if is_field else '', None)
    key = name if is_field else f'{len(arguments)} {len(rest)}'
    arguments[key] = words
  return [word for words in arguments.values() for word in words]


def explain(error: Exception) -> str:
  """Return the useful line of an error raised while flags were parsed."""
  # str() of a KeyError is the repr of its text.
  text = str(error.args[0] if isinstance(error, KeyError) else error)
  lines = [line.strip() for line in text.splitlines() if line.strip()]
  if "no attribute 'get_config'" in text:
    return '--config: the file has no function get_config(), as configs/ have'
  near = re.search(r'Did you mean "(.+?)" instead of "(.+?)"', text)
  if near:
    return f'the config has no field {near[2]!r}; did you mean {near[1]!r}?'
  if isinstance(error, KeyError | AttributeError):
    name = text.strip('\'"')
    return f'the config has no field {name!r}'
  if isinstance(error, OSError):
    return f'--config: {lines[-1]}'
  if any(line.startswith('Traceback') for line in lines):
    return '--config: ' + re.sub(r'^[\w.]+: ', '', lines[-1])
  return ' '.join(lines) or type(error).__name__
