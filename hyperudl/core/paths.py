"""Checks the paths of a command line, and expands `~` in them."""

import os
from typing import Any

from absl import flags
from ml_collections import config_dict

from hyperudl.core.errors import BadInput

flags.disclaim_key_flags()  # `--help` lists flags under the command's module

_NAME_BYTES = 255  # of a file or folder on all usual file systems
_PATH_BYTES = 4000  # Linux allows 4096, and names are added to a folder's


def local(text: str) -> str:
  """Return the path of a file or folder of this machine, `~` expanded.

  Args:
    text: as the user gave it.

  Raises:
    ValueError: it is empty, too long, or the address of another machine.
  """
  if not text.strip():
    raise ValueError('the path is empty; name a file or folder')
  if '://' in text:
    raise ValueError(
      'only files and folders of this machine can be used; mount the other '
      'one, or copy from there'
    )
  path = os.path.expanduser(text)
  sizes = [len(os.fsencode(name)) for name in path.split(os.sep)]
  if max(sizes) > _NAME_BYTES or len(os.fsencode(path)) > _PATH_BYTES:
    raise ValueError(
      f'a name in it has {max(sizes)} bytes; choose a shorter one (at most '
      f'{_NAME_BYTES}, and {_PATH_BYTES} for the whole path)'
    )
  return path


class _PathParser(flags.ArgumentParser):
  """Parses the value of a flag as `local` does."""

  syntactic_help = 'a file or folder of this machine'

  def parse(self, argument: Any) -> str:
    return local(argument)


class _PathsParser(flags.ListParser):
  """Parses the value of a flag as a list of paths, each as `local` does."""

  def parse(self, argument: Any) -> list[str]:
    return [local(path) for path in super().parse(argument)]


def define_list(
  name: str,
  help: str,
  flag_values: flags.FlagValues = flags.FLAGS,
  required: bool = True,
) -> None:
  """Define a flag that holds paths, separated by commas."""
  flags.DEFINE(
    _PathsParser(),
    name,
    None,
    help,
    flag_values,
    flags.ListSerializer(','),
    required=required,
  )


def define(
  name: str,
  default: str | None,
  help: str,
  required: bool = False,
  flag_values: flags.FlagValues = flags.FLAGS,
) -> None:
  """Define a flag that holds a path; a bad one ends the command in one line."""
  flags.DEFINE(
    _PathParser(),
    name,
    default,
    help,
    flag_values,
    flags.ArgumentSerializer(),
    required=required,
  )


def expand(config: config_dict.ConfigDict) -> None:
  """Expand `~` in the fields of a run's config that hold paths.

  Raises:
    BadInput: as `local`, naming the field.
  """
  for section, name in (
    (config.data, 'data.dir'),
    (config.data, 'data.latents'),
    *((config.init_from, f'init_from.{name}') for name in config.init_from),
  ):
    field = name.split('.')[-1]
    if name != 'data.dir' and not section[field]:
      continue  # none
    try:
      section[field] = local(section[field])
    except ValueError as error:
      raise BadInput(f'config.{name}={section[field]!r}: {error}') from None
