"""The command that builds Meta-VQA from the files of VQA v2.

Guards: data/convert.py.
"""

import json

from hyperudl.data import convert
from hyperudl.data.language import metavqa_tasks
from tests.testing import vqa as helper


def vqa_folder(folder, vqa):
  """The files of VQA v2 as they are published, and templates."""
  for kind, name in (
    ('questions', 'v2_OpenEnded_mscoco_{}_questions.json'),
    ('annotations', 'v2_mscoco_{}_annotations.json'),
  ):
    for subset, records in getattr(vqa, kind).items():
      (folder / name.format(subset)).write_text(json.dumps({kind: records}))
  asked = {r['question'] for rows in vqa.questions.values() for r in rows}
  templates = {question: 'it is {}' for question in asked}
  (folder / 'templates.json').write_text(json.dumps(templates))


def run_convert(*options):
  return convert.main(['convert', '--kind=metavqa', *options])


def test_the_command_builds_and_describes_and_never_overwrites(
  tmp_path, capsys
):
  vqa = helper.cats()
  for number in range(12):
    question = f'What is thing {number}?'
    vqa.add(question, 'this', range(100, 114))
    vqa.add(question, 'that', range(200, 209))
  vqa_folder(tmp_path, vqa)
  options = [f'--source={tmp_path}', f'--out={tmp_path}', '--name=tasks']
  assert run_convert(*options) == 0
  report = capsys.readouterr().out
  files = {path.name for path in (tmp_path / 'tasks').iterdir()}
  assert files == {
    'meta_train.json',
    'meta_valid.json',
    'meta_test.json',
    'templates.json',
  }
  built = {}
  for split in ('train', 'valid', 'test'):
    path = tmp_path / 'tasks' / f'meta_{split}.json'
    built.update(metavqa_tasks.read_tasks(str(path)))
  assert built == vqa.tasks()
  assert report.endswith(f'wrote {tmp_path / "tasks"}\n')
  assert run_convert(*options) == 2
  assert 'exists; give --overwrite' in capsys.readouterr().err
  # Features that lie there stay.
  (tmp_path / 'tasks' / 'image_features.npz').write_bytes(b'mine')
  assert run_convert(*options, '--overwrite') == 0
  assert (tmp_path / 'tasks' / 'image_features.npz').read_bytes() == b'mine'
  capsys.readouterr()
  # What has been built is only described.
  again = [f'--source={tmp_path / "tasks"}', f'--out={tmp_path}', '--name=b']
  assert run_convert(*again) == 0
  assert capsys.readouterr().out == report.partition('wrote')[0]
  assert not (tmp_path / 'b').exists()


def test_a_missing_file_is_refused_and_nothing_written(tmp_path, capsys):
  vqa_folder(tmp_path, helper.cats())
  (tmp_path / 'v2_mscoco_val2014_annotations.json').unlink()
  options = [f'--source={tmp_path}', f'--out={tmp_path}', '--name=tasks']
  assert run_convert(*options) == 2
  message = capsys.readouterr().err
  assert 'v2_mscoco_val2014_annotations.json' in message
  assert message.count('\n') == 1
  assert not (tmp_path / 'tasks').exists()
