"""The table of mutations fits the code: what it replaces and runs is there."""

from tests.testing import runs
from tools import mutations


def test_every_original_occurs_once_and_its_mutation_is_python():
  for mutation in mutations.MUTATIONS:
    text = (runs.ROOT / mutation.path).read_text()
    assert text.count(mutation.original) == 1, mutation
    mutated = text.replace(mutation.original, mutation.mutated)
    assert mutated != text
    compile(mutated, mutation.path, 'exec')


def test_every_test_file_exists():
  for mutation in mutations.MUTATIONS:
    for name in mutation.tests:
      assert (runs.ROOT / name).is_file(), mutation


def test_every_reason_is_of_a_mutation():
  assert set(mutations.REASONS) <= set(range(1, len(mutations.MUTATIONS) + 1))
