"""Adds pages to the site that are kept elsewhere; mkdocs.yml names this file.

The README, other pages of the repository and the tutorial become pages of the
site, and links between files of the repository become links between its pages,
so that each text is kept once and its links work in both places.
"""

import pathlib
import posixpath
import re

ROOT = pathlib.Path(__file__).parents[1]
# Pages that are not in docs/, by their place in the repository.
PAGES = {
  'README.md': 'index.md',
  'CONTRIBUTING.md': 'contributing.md',
  'CHANGELOG.md': 'changelog.md',
  'data_numpy_dir/README.md': 'data.md',
}
NOTEBOOK = 'tutorial.ipynb'
_LINK = re.compile(r'(\]\()([^)\s:#]+)(#[^)\s]*)?\)')


def on_files(files, *, config):
  """Add the pages that are not Markdown files of docs/."""
  import nbconvert  # of the extra `docs`, like mkdocs

  for source, target in PAGES.items():
    text = (ROOT / source).read_text('utf-8')
    add(files, config, target, text)
  exporter = nbconvert.MarkdownExporter()
  text, resources = exporter.from_filename(ROOT / 'docs' / NOTEBOOK)
  add(files, config, 'tutorial.md', text)
  for name, content in resources['outputs'].items():
    add(files, config, name, content)
  return files


def add(files, config, path, content):
  from mkdocs.structure import files as files_lib

  files.append(files_lib.File.generated(config, path, content=content))


def on_page_markdown(markdown, *, page, config, files):
  """Replace links between files of the repository by those of the site."""
  del config, files
  sources = {target: source for source, target in PAGES.items()}
  path = page.file.src_uri
  source = sources.get(path, f'docs/{path}')
  return relink(markdown, source, path)


def relink(markdown, source, path):
  """Return a page with its links relative to its place in the site.

  Args:
    markdown: text of the page.
    source: its place in the repository.
    path: its place in the site.
  """

  def replace(match):
    start, link, anchor = match.groups()
    target = posixpath.normpath(posixpath.join(posixpath.dirname(source), link))
    if (ROOT / target).is_dir():
      target += '/README.md'
    target = PAGES.get(target, target.removeprefix('docs/'))
    target = target.replace(NOTEBOOK, 'tutorial.md')
    target = posixpath.relpath(target, posixpath.dirname(path) or '.')
    return f'{start}{target}{anchor or ""})'

  return _LINK.sub(replace, markdown)
