"""Prepares a command line for ml_collections, and explains its errors."""

from collections.abc import Sequence
import re


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
