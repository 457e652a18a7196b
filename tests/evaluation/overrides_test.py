"""Files of overrides: what is read, what is refused before anything is run."""

from hyperudl import core
from hyperudl.core import config as config_lib
from hyperudl.evaluation import overrides
from hyperudl.evaluation import runner
from tests.testing import runs
from tests.testing.errors import refusal


def written(tmp_path, text):
  path = tmp_path / 'lines.txt'
  path.write_text(text)
  return str(path)


def test_lines_are_split_as_a_shell_does(tmp_path):
  text = "# shifts\n\n--tag=a --way=3  # easy\n--dataset='my set' --tag=b\n"
  path = written(tmp_path, text)
  assert overrides.read(path) == {
    f'{path}:3': ['--tag=a', '--way=3'],
    f'{path}:4': ['--dataset=my set', '--tag=b'],
  }


def test_a_file_without_lines_or_with_an_open_quote_is_refused(tmp_path):
  path = written(tmp_path, '--tag=a\n--tag="b\n')
  assert f'{path}:2: No closing quotation' in refusal(overrides.read, path)
  path = written(tmp_path, '# nothing\n')
  assert 'is empty: write the flags of' in refusal(overrides.read, path)
  message = refusal(overrides.read, str(tmp_path / 'absent'))
  assert 'absent cannot be read' in message


def test_an_error_names_its_place_and_keeps_its_kind():
  def fail(place, error):
    with overrides.at(place):
      raise error

  error = core.Unreadable
  assert refusal(fail, 'a:7', error('broken'), error=error) == 'a:7: broken'
  assert refusal(fail, '', core.BadInput('broken')) == 'broken'


def request(tag, **fields):
  config = config_lib.base().unlock()
  config.data.dataset, config.data.dir = 'tiny', str(runs.data_dir())
  config.learner = {'name': 'protonet', 'channels': (4, 4)}
  config.episode.update({'way': 3, 'query': 2, **fields})
  return runner.Request(config, tag=tag)


def test_all_requests_are_checked_before_the_first_is_evaluated(tmp_path):
  good = request('good')
  refused = lambda **requests: refusal(
    overrides.evaluate_all, tmp_path / 'nowhere', requests
  )
  same = refused(a=good, b=good)
  assert same.startswith("b: its result 'good-test' is also that of a: give")
  wide = refused(a=good, b=request('wide', way=7))
  assert wide.startswith('b: test: episode.way=7 takes 7 classes, there are 6')
  unknown = refused(a=good, b=good._replace(tag='classes', uncertainty=True))
  assert unknown.startswith('b: no run in')
  assert refused(a=good, b=request('a/b')).startswith("b: tag 'a/b-test' names")
