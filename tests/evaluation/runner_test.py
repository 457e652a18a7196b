"""Printed lines, and overrides of the command line."""

import pytest

from configs import protonet
from hyperudl import core
from hyperudl.evaluation import runner
from tests.testing.errors import refusal


def test_ranges_are_those_of_the_run_and_not_of_another_set():
  config = protonet.get_config('omniglot,classes=0-3/4/5').unlock()
  config.data.shuffle_classes = 2022
  other, tag = runner.override(config, {}, {'dataset': 'mnist'})
  assert (other.data.classes, other.data.shuffle_classes) == ('', 0)
  assert tag == 'mnist'
  same, tag = runner.override(config, {}, {})
  assert same.data.classes == '0-3/4/5' and not tag
  changes = {'data.classes': '7/8/9'}
  chosen, tag = runner.override(
    config, changes, {'dataset': 'mnist', 'tag': 'some'}
  )
  assert chosen.data.classes == '7/8/9' and tag == 'some'


def test_options_change_the_episodes_and_name_the_result():
  config = protonet.get_config('omniglot,way=20')
  options = {'way': 5, 'shot': None, 'episodes': 7, 'data_dir': 'here'}
  changed, tag = runner.override(config, {}, options)
  assert changed.episode.way == 5 and changed.eval.episodes == 7
  assert changed.data.dir == 'here' and tag == '5way'
  assert config.episode.way == 20


def test_a_change_of_what_is_evaluated_needs_a_tag():
  config = protonet.get_config()
  message = refusal(runner.override, config, {'data.shift': 'blur'}, {})
  assert 'data.shift changes what is evaluated' in message
  changed, tag = runner.override(config, {'eval.batch': '7'}, {})
  assert changed.eval.batch == 7 and not tag
  with pytest.raises(core.BadInput, match='no field'):
    runner.override(config, {'episode.shto': '1'}, {'tag': 'a'})


def test_the_printed_line_has_percents_and_plain_numbers():
  row = {'accuracy': 0.5, 'accuracy_ci95': 0.0123, 'episodes': 600}
  row |= {'nll': 1.5, 'nll_ci95': 0.25, 'gain_step': 0.01, 'other': 3.0}
  row |= {'accuracy/ink': 0.25, 'accuracy/ink_ci95': 0.05}
  line = runner.format_row('test', 40, row)
  assert line == (
    'test step 40:  accuracy 50.00+-1.23%  accuracy/ink 25.00+-5.00%  '
    'nll 1.50+-0.25  (600 episodes)'
  )
