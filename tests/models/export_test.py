"""`hyperudl export` writes what `Task.export` does, or one line."""

from tests.testing import models
from tests.testing import runs


def test_a_saved_task_is_exported_by_command(tmp_path):
  task = models.make().adapt(*models.support())
  task.save(tmp_path / 'mine.npz')
  task.export(tmp_path / 'expected.npz')
  saved = f'--task={tmp_path}/mine.npz'
  done, *refused = runs.call_many(
    'models.export',
    [
      [saved, f'--out={tmp_path}/found.npz'],
      [saved],
      [saved, f'--out={tmp_path}/cnn.tflite'],
      [f'--task={tmp_path}/none.npz', f'--out={tmp_path}/cnn.onnx'],
    ],
  )
  assert done.code == 0, done.err
  expected = (tmp_path / 'expected.npz').read_bytes()
  assert (tmp_path / 'found.npz').read_bytes() == expected
  for result, words in zip(refused, ('--out', "'.tflite'", 'none.npz')):
    assert result.code == 2 and words in result.err.splitlines()[-1]
  names = {path.name for path in tmp_path.iterdir()}
  assert names == {'mine.npz', 'expected.npz', 'found.npz'}
