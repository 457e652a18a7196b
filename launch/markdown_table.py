"""A table for a page of results."""


def print_table(header, rows):
  """Prints a table in markdown, without columns that are empty."""
  full = [i for i in range(len(header)) if any(row[i] for row in rows)]
  header, *rows = ([row[i] for i in full] for row in (header, *rows))
  print('| ' + ' | '.join(header) + ' |')
  print('|---' * len(header) + '|')
  for row in rows:
    print('| ' + ' | '.join(row) + ' |')
  print()
