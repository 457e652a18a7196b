"""A table for a page of results."""


def table_lines(header, rows):
  """Lines of a table in markdown, without columns that are empty."""
  full = [i for i in range(len(header)) if any(row[i] for row in rows)]
  header, *rows = ([row[i] for i in full] for row in (header, *rows))
  cells = lambda row: '| ' + ' | '.join(row) + ' |'
  return [cells(header), '|---' * len(header) + '|', *map(cells, rows)]


def print_table(header, rows):
  """Prints a table in markdown, and an empty line."""
  print('\n'.join(table_lines(header, rows)) + '\n')
