"""Prints what learners are exempt from, with the reasons, after the laws."""

import sys


def pytest_terminal_summary(terminalreporter):
  laws = sys.modules.get('tests.laws.learners_test')
  if not laws:
    return
  terminalreporter.section('exemptions of learners from the laws')
  for name, law in laws.LAWS.items():
    if law.stated():
      terminalreporter.write_line(f'{name}: {law.stated()}')
