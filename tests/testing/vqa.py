"""Small records of VQA v2, from which tasks of Meta-VQA are built."""

import itertools

from hyperudl.data.language import metavqa_build

CAT = 'What color is the cat?'


class Vqa:
  """Records of VQA v2 in the order in which they are added."""

  def __init__(self):
    self.questions = {'train2014': [], 'val2014': []}
    self.annotations = {'train2014': [], 'val2014': []}
    self.numbers = itertools.count(1000)

  def add(self, question, answer, images, subset='train2014', kind='other'):
    for image in images:
      number = next(self.numbers)
      self.questions[subset].append(
        {'image_id': image, 'question': question, 'question_id': number}
      )
      self.annotations[subset].append(
        {
          'question_id': number,
          'image_id': image,
          'question_type': 'what',
          'answer_type': kind,
          'multiple_choice_answer': answer,
          'answers': [{'answer': answer}],
        }
      )
    return self

  def build(self, templates=None, **options):
    if templates is None:
      asked = itertools.chain(*self.questions.values())
      templates = {record['question']: 'it is {}' for record in asked}
    return metavqa_build.build(
      self.questions, self.annotations, templates, **options
    )

  def tasks(self, **options):
    files = self.build(**options)
    del files['templates.json']
    return {
      name: task for part in files.values() for name, task in part.items()
    }


def cats():
  """21 images: 15 black, 3 of them in the other subset, and 6 white."""
  vqa = Vqa().add(CAT, 'black', range(1, 13)).add(CAT, 'white', range(20, 26))
  return vqa.add(CAT, 'black', range(1, 4), 'val2014')
