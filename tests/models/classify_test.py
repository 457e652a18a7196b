"""`hyperudl classify` from folders to predictions.csv, and its refusals.

Guards: models/command.py.
"""

import csv
import dataclasses
import os
import shutil

import numpy as np
import pytest

import hyperudl
from hyperudl.data.datasets import image_inputs
from hyperudl.models import bundle
from hyperudl.models import classify
from hyperudl.models import command as command_lib
from hyperudl.models import formats
from tests.testing import image_sets
from tests.testing import models
from tests.testing import runs


@pytest.fixture(scope='module')
def place(tmp_path_factory):
  """A folder with a model, a support and queries, one of them damaged."""
  place = tmp_path_factory.mktemp('place')
  models.make().save(place / 'model.npz')
  for number, (image, name) in enumerate(zip(*models.support())):
    image_sets.draw(place / 'support' / name / f'{number}.png', image)
  for number, image in enumerate(models.pixels(5)):
    image_sets.draw(place / 'query' / str(number % 2) / f'{number}.png', image)
  (place / 'query' / '0' / 'bad.png').write_text('no image')
  (place / 'query' / 'notes.txt').write_text('passed over')
  return place


def flags(place, *more):
  return [
    f'--model={place}/model.npz',
    f'--support={place}/support',
    f'--query={place}/query',
    f'--out={place}/out.csv',
    *more,
  ]


def rows_of(path):
  with open(path, encoding='utf-8', newline='') as file:
    return list(csv.DictReader(file))


def test_a_folder_is_classified_and_again_by_the_saved_task(place):
  saved, again = place / 'task.npz', place / 'again.csv'
  exported = place / 'weights.npz'
  given = flags(place, f'--save={saved}', '--unknown=0.5', '--loo')
  given.append(f'--export={exported}')
  (first,) = runs.call_many('models.classify', [given])
  given = [f'--task={saved}', f'--out={again}', given[2], '--unknown=0.5']
  (second,) = runs.call_many('models.classify', [given])
  assert (first.code, second.code) == (0, 0), (first, second)
  assert 'leave-one-out: ' in first.err and '% of 6 images' in first.err
  assert 'passed over 1 entries' in first.err
  assert '6 files, 1 unreadable' in first.err
  assert (place / 'out.csv').read_bytes() == again.read_bytes()
  rows = rows_of(again)
  names = [os.path.relpath(row['path'], place / 'query') for row in rows]
  assert names == ['0/0.png', '0/2.png', '0/4.png', '0/bad.png'] + [
    '1/1.png',
    '1/3.png',
  ]
  columns = ['path', 'label', 'confidence', 'unknown', 'error']
  assert list(rows[0]) == columns + [f'p:{name}' for name in models.CLASSES]
  task = hyperudl.load_task(saved)
  arrays, about = bundle.read(exported, formats.WEIGHTS)
  assert about['classes'] == task.classes.tolist()
  for name, array in formats.weights(task).items():
    np.testing.assert_array_equal(arrays[name], array)
  for row in rows:
    if 'bad' in row['path']:
      assert 'not an image file' in row['error']
      assert row['label'] == row['confidence'] == row['p:ant'] == ''
      continue
    p = task.predict_proba([row['path']])[0]
    found = [float(row[f'p:{name}']) for name in models.CLASSES]
    np.testing.assert_allclose(found, p, atol=1e-6)
    assert row['label'] == models.CLASSES[p.argmax()]
    assert float(row['confidence']) == max(found) and row['error'] == ''
    assert row['unknown'] == str(int(max(found) < 0.5))


def calibrate(place):
  """Save the model with a temperature of 2 and a threshold for unknown classes.

  Returns the largest logit of each query, the threshold, of which two fall
  short, and a probability of which three fall short.
  """
  task = models.make().adapt(place / 'support')
  queries = list(map(str, sorted((place / 'query').rglob('[0-9].png'))))
  logits, p = task.best_logits(queries), task.predict_proba(queries)
  limit = float(np.sort(logits)[2])
  found = {'temperature': {'3': 2.0}, 'unknown': {'3': limit}}
  about = {'calibration': found}
  dataclasses.replace(task.model, about=about).save(place / 'calibrated.npz')
  return dict(zip(queries, logits)), limit, float(np.sort(p.max(axis=1))[3])


def test_temperatures_and_thresholds_are_given_or_those_of_the_model(place):
  logits, limit, probability = calibrate(place)
  given = {
    '1': ['--temperature=1', f'--unknown={probability:.17f}'],
    '4': ['--temperature=4', '--unknown=auto'],
    'auto': ['--temperature=auto', '--unknown=auto'],
    'default': [],
  }
  model = f'--model={place}/calibrated.npz'
  commands = [
    flags(place, model, f'--out={place}/{name}.csv', *more)
    for name, more in given.items()
  ]
  results = runs.call_many('models.classify', commands)
  assert [result.code for result in results] == [0] * 4, results
  p, unknown = {}, {}
  for name in given:
    rows = [r for r in rows_of(place / f'{name}.csv') if not r['error']]
    p[name] = np.array([[r[f'p:{c}'] for c in models.CLASSES] for r in rows])
    p[name] = p[name].astype(float)
    unknown[name] = [row['unknown'] == '1' for row in rows]
  for name, temperature in (('4', 4), ('auto', 2), ('default', 2)):
    expected = p['1'] ** (1 / temperature)
    expected /= expected.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(p[name], expected, rtol=1e-4)
  # The threshold of logits does not depend on the temperature.
  assert unknown['4'] == unknown['auto']
  assert unknown['4'] == [logits[row['path']] < limit for row in rows]
  assert unknown['1'] == [row.max() < probability for row in p['1']]
  assert [sum(unknown[name]) for name in given] == [3, 2, 2, 0]


def test_many_files_come_in_batches_with_the_same_rows(place, tmp_path):
  task = models.make().adapt(place / 'support')
  queries = [str(p) for p in sorted((place / 'query').rglob('*.png'))]
  for batch in (1, 4, 256):
    classify.write_predictions(task, queries, tmp_path / 'o', None, batch)
    rows = rows_of(tmp_path / 'o')
    assert [row['path'] for row in rows] == queries
    assert [row['unknown'] for row in rows if not row['error']] == ['0'] * 5
  assert os.listdir(tmp_path) == ['o']  # no temporary file is left


def test_the_bytes_do_not_depend_on_the_order_of_files(place, monkeypatch):
  before = None
  listdir = os.listdir
  for reverse in (False, True):
    order = lambda path: sorted(listdir(path), reverse=reverse)
    monkeypatch.setattr(os, 'listdir', order)
    model = models.make()
    task = model.adapt(place / 'support', unlabelled=place / 'support')
    queries = classify.files.unlabelled(place / 'query')
    classify.write_predictions(task, queries, place / 'order.csv')
    content = (place / 'order.csv').read_bytes()
    assert before in (None, content)
    before = content


def test_bad_commands_are_refused_in_one_line_and_write_nothing(place):
  damaged = place / 'damaged.npz'
  shutil.copy(place / 'model.npz', damaged)
  content = bytearray(damaged.read_bytes())
  content[len(content) // 2] ^= 1
  damaged.write_bytes(content)
  faults = {
    'give --model and --support': [f'--query={place}/query', '--out=o'],
    'drop --model': ['--task=a', '--model=b'],
    '--query and --out': flags(place)[:3],
    'nothing to do': flags(place)[:2],
    'no model': ['--model=nope', *flags(place)[1:]],
    'copy it again': [f'--model={damaged}', *flags(place)[1:]],
    'no such file': [*flags(place)[:2], '--query=nope', '--out=o.csv'],
    'class folders': [*flags(place), f'--support={place}/query/0/0.png'],
    'unknown': flags(place, '--unknown=2'),
    'names no format': flags(place, '--export=a.zip'),
    'temperature=0': flags(place, '--temperature=0'),
    'temperature=hot': flags(place, '--temperature=hot'),
    'Model.calibrate': flags(place, '--unknown=auto'),
    'drop --temperature': ['--task=a', '--temperature=2'],
  }
  (place / 'out.csv').unlink(missing_ok=True)
  results = runs.call_many('models.classify', list(faults.values()))
  for words, result in zip(faults, results):
    line = result.err.splitlines()[-1]  # others tell what was passed over
    assert result.code == 2 and words in line, (words, result)
    assert line.startswith('classify: ') and 'Traceback' not in result.err
  assert not (place / 'out.csv').exists()


def test_the_console_script_runs_the_same_mains(monkeypatch, capsys):
  script = 'from hyperudl.models import command as c; c.main()'
  command = ['python', '-c', script, 'classify', '--query=a']
  result = runs.finish(runs.launch(command))
  assert result.code == 2
  assert result.line.startswith('classify: give --model')
  monkeypatch.setattr('sys.argv', ['hyperudl', 'what'])
  with pytest.raises(SystemExit) as end:
    command_lib.main()
  assert end.value.code == 2
  assert "no command 'what'" in capsys.readouterr().err


def test_a_drawing_is_classified_alike_in_both_polarities(tmp_path):
  inputs = image_inputs.Inputs(8, 8, 1, 'light_on_dark')
  x, y = models.support()
  x[:, [0, -1]] = x[:, :, [0, -1]] = 0  # a dark border
  task = models.make(inputs=inputs).adapt(x, y)
  np.testing.assert_array_equal(
    task.predict_proba(255 - x), task.predict_proba(x)
  )
