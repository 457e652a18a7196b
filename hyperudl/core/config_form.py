"""Checks that a config has the sections and fields of every run."""

from ml_collections import config_dict

from hyperudl.core.errors import BadInput


def check(
  config: config_dict.ConfigDict, defaults: config_dict.ConfigDict
) -> None:
  """Refuse a config without a section or field that every run has.

  Args:
    config: as a user or a file gives it.
    defaults: has all sections, and the fields that each must have.

  Raises:
    BadInput: naming what is missing, or not a section.
  """
  missing = []
  for name, value in defaults.items():
    if not isinstance(value, config_dict.ConfigDict):
      missing += [name] * (name not in config)
    elif name not in config:
      missing += [f'{name}.{field}' for field in value] or [name]
    elif not isinstance(config[name], config_dict.ConfigDict):
      raise BadInput(
        f'config.{name} = {config[name]!r}: expected a section with fields'
      )
    else:
      missing += _missing(config[name], value, f'{name}.')
  if missing:
    raise BadInput(
      f'the config lacks {", ".join(sorted(missing))}: start from '
      'common.base() of configs/common.py, and use a new workdir if another '
      'version made the run'
    )
  name = config.learner.name if 'name' in config.learner else None
  if not isinstance(name, str):
    raise BadInput(f'config.learner.name = {name!r}: expected a name')
  for field, path in config.init_from.items():
    if not isinstance(path, str):
      raise BadInput(f'config.init_from.{field} = {path!r}: expected a path')


def _missing(section, defaults, prefix):
  """Return the fields of `defaults` that a section lacks, nested ones too."""
  found = []
  for name, value in defaults.items():
    if name not in section:
      found.append(f'{prefix}{name}')
    elif isinstance(value, config_dict.ConfigDict):
      if not isinstance(section[name], config_dict.ConfigDict):
        raise BadInput(
          f'config.{prefix}{name} = {section[name]!r}: expected a section'
        )
      found += _missing(section[name], value, f'{prefix}{name}.')
  return found
