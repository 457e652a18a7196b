"""The site has every page once, and each of its links leads somewhere."""

import importlib.util
import re
import subprocess
import sys

import pytest

import hyperudl
from tests.testing import runs
from tools import site_pages

NEEDED = ('mkdocs', 'material', 'mkdocstrings_handlers', 'nbconvert')
RESULTS = runs.ROOT / 'docs' / 'results'


@pytest.mark.parametrize(
  'source, path, link, wanted',
  [
    ('README.md', 'index.md', 'docs/faq.md', 'faq.md'),
    ('README.md', 'index.md', 'docs/guide.md#data', 'guide.md#data'),
    ('README.md', 'index.md', 'data_numpy_dir/README.md', 'data.md'),
    ('docs/faq.md', 'faq.md', '../CONTRIBUTING.md', 'contributing.md'),
    ('docs/faq.md', 'faq.md', 'results', 'results/README.md'),
    ('docs/faq.md', 'faq.md', 'tutorial.ipynb', 'tutorial.md'),
    ('docs/tutorial.md', 'tutorial.md', '../README.md#a', 'index.md#a'),
    ('docs/results/a.md', 'results/a.md', '../guide.md', '../guide.md'),
    ('docs/results/a.md', 'results/a.md', 'b.png', 'b.png'),
    ('data_numpy_dir/README.md', 'data.md', '../docs/faq.md', 'faq.md'),
    ('README.md', 'index.md', 'https://a.b/c.md', 'https://a.b/c.md'),
    ('README.md', 'index.md', '#results', '#results'),
  ],
)
def test_links_of_the_repository_become_those_of_the_site(
  source, path, link, wanted
):
  found = site_pages.relink(f'see [this]({link}).', source, path)
  assert found == f'see [this]({wanted}).'


def test_every_page_of_results_is_in_their_list():
  listed = re.findall(r'\]\((\w+\.md)\)', (RESULTS / 'README.md').read_text())
  pages = {path.name for path in RESULTS.glob('*.md')} - {'README.md'}
  assert set(listed) == pages and len(listed) == len(pages)


def test_the_reference_has_every_public_name():
  text = (runs.ROOT / 'docs' / 'api.md').read_text()
  for name in hyperudl.__all__:
    assert f'heading: hyperudl.{name}\n' in text, name


def test_anchors_are_headings_as_the_code_host_names_them():
  folder = runs.ROOT / 'docs'
  pages = [*runs.ROOT.glob('*.md'), *folder.rglob('*.md')]
  pages += [folder / 'tutorial.ipynb', *runs.ROOT.glob('data_numpy_dir/*.md')]
  followed = 0
  for page in pages:
    for link, anchor in re.findall(
      r'\]\(([^):#]*)#([^)]+)\)', page.read_text()
    ):
      target = page.parent / link if link else page
      assert anchor in anchors(target.read_text()), (page.name, link, anchor)
      followed += 1
  assert followed > 15


def anchors(text):
  """The anchors of the headings of a page."""
  text = re.sub(r'^```.*?^```', '', text, flags=re.M | re.S)
  headings = re.findall(r'^#+ (.+)$', text, re.M)
  kept = [re.sub(r'[^\w\- ]', '', heading.lower()) for heading in headings]
  return [words.strip().replace(' ', '-') for words in kept]


@pytest.mark.slow
def test_the_site_is_built_without_a_warning(tmp_path):
  missing = [name for name in NEEDED if not importlib.util.find_spec(name)]
  if missing:
    pytest.skip(f"no {', '.join(missing)}: pip install -e '.[docs]'")
  command = [sys.executable, '-m', 'mkdocs', 'build', '--strict']
  done = subprocess.run(
    [*command, f'--site-dir={tmp_path}'],
    cwd=runs.ROOT,
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stderr
  read = lambda page: (tmp_path / page / 'index.html').read_text()
  assert '<h1 id="hyperudl">' in read('') and 'launch/quickstart.sh' in read('')
  assert 'href="guide/#evaluation"' in read('')
  pictures = re.findall(r'<img[^>]* src="\.\./([^"]+)"', read('tutorial'))
  assert len(pictures) == 6
  assert all((tmp_path / name).stat().st_size > 1000 for name in pictures)
  assert 'same answers: True' in read('tutorial')
  assert 'Adapt to labelled images of up to' in read('api')
  for path in RESULTS.glob('[a-z]*.md'):
    assert f'href="{path.stem}/"' in read('results'), path
