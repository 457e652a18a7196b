"""Paths of a command line are expanded, or refused in one line."""

import os

from absl import flags
import pytest

from configs import hyperldm
from hyperudl.core import paths
from tests.testing import errors

HOME = os.path.expanduser('~')


def parsed(value, **options):
  values = flags.FlagValues()
  paths.define('workdir', None, 'Folder.', flag_values=values, **options)
  values(['train', f'--workdir={value}'])
  return values.workdir


def test_a_tilde_is_the_home_folder():
  assert parsed('~/runs/a') == f'{HOME}/runs/a'
  assert parsed('runs/~') == 'runs/~'


@pytest.mark.parametrize(
  'value, words',
  [
    ('', 'the path is empty'),
    ('gs://bucket/run', 'only files and folders of this machine'),
    ('s3://bucket/run', 'only files and folders of this machine'),
    ('x' * 300, 'a name in it has 300 bytes; choose a shorter one'),
    ('ä' * 200, 'a name in it has 400 bytes'),
    ('long/' * 1000, '4000 for the whole path'),
  ],
)
def test_a_path_that_cannot_be_used_is_refused(value, words):
  with pytest.raises(flags.IllegalFlagValueError, match=words):
    parsed(value)
  with pytest.raises(ValueError, match=words):
    paths.local(value)


def test_each_path_of_a_list_is_expanded_or_refused():
  values = flags.FlagValues()
  paths.define_list('workdir', 'Folders.', flag_values=values)
  values(['plots', '--workdir=~/a,runs/b'])
  assert values.workdir == [f'{HOME}/a', 'runs/b']
  with pytest.raises(flags.IllegalFlagValueError, match='only files and fol'):
    values(['plots', '--workdir=runs/a,gs://bucket/run'])


def test_a_tilde_in_the_fields_of_a_config_is_expanded():
  config = hyperldm.get_config()
  config.data.dir = '~/data'
  config.init_from.hypernet = '~/runs/hypernet'
  paths.expand(config)
  assert config.data.dir == f'{HOME}/data'
  assert config.init_from.hypernet == f'{HOME}/runs/hypernet'
  assert config.data.latents == ''


def test_an_address_in_a_field_of_a_config_is_refused():
  config = hyperldm.get_config()
  config.data.dir = 'gs://data'
  words = "config.data.dir='gs://data': only files"
  assert words in errors.refusal(paths.expand, config)
