"""In a browser: the demo page draws, takes files and shows predictions."""

import base64
import dataclasses
import io
import shutil
import threading

import numpy as np
from PIL import Image
import pytest

from hyperudl.data.datasets import image_inputs
from hyperudl.models.demo import server
from tests.testing import models

NAMES = ('cross', 'ring')
STROKES = {
  'cross': [[(-50, 0), (50, 0)], [(0, -50), (0, 50)]],
  'ring': [[(0, -50), (50, 0), (0, 50), (-50, 0), (0, -50)]],
}
DROP = """
const [card, url, name] = arguments, data = new DataTransfer();
const bytes = Uint8Array.from(atob(url), (letter) => letter.charCodeAt(0));
data.items.add(new File([bytes], name, { type: 'image/png' }));
const options = { dataTransfer: data, bubbles: true, cancelable: true };
card.dispatchEvent(new DragEvent('drop', options));
"""


@pytest.fixture(scope='module')
def browser():
  """Chromium without a window, of the width of a phone."""
  reason = 'needs pip install selenium'
  webdriver = pytest.importorskip('selenium.webdriver', reason=reason)
  driver = shutil.which('chromedriver')
  if not (driver and shutil.which('chromium')):
    pytest.skip('needs chromium and its driver: apt install chromium-driver')
  options = webdriver.ChromeOptions()
  for flag in ('headless=new', 'no-sandbox', 'disable-dev-shm-usage'):
    options.add_argument(f'--{flag}')
  options.binary_location = shutil.which('chromium')
  options.set_capability('goog:loggingPrefs', {'browser': 'ALL'})
  found = webdriver.Chrome(options, webdriver.ChromeService(driver))
  metrics = {'width': 375, 'height': 800, 'deviceScaleFactor': 2}
  metrics['mobile'] = True
  found.execute_cdp_cmd('Emulation.setDeviceMetricsOverride', metrics)
  yield found
  found.quit()


@pytest.fixture(scope='module')
def model():
  """A network that adapts its convolutions, and sees bright ink.

  It carries a temperature, and a threshold that no image reaches.
  """
  inputs = image_inputs.Inputs(28, 28, 1, 'light_on_dark')
  found = models.make('maml', inputs=inputs)
  values = {'temperature': {'2': 2.0, '3': 2.0}, 'unknown': {'2': 1e9}}
  return dataclasses.replace(found, about={'calibration': values})


@pytest.fixture
def page(browser, model):
  """The page, opened in the browser."""
  with server.Server(model, 0) as running:
    thread = threading.Thread(target=running.serve_forever)
    thread.start()
    browser.get(running.url)
    wait(browser, lambda: len(all_of(browser, '#classes .card')) == 2)
    yield browser
    running.shutdown()
    thread.join()


def all_of(parent, selector):
  return parent.find_elements('css selector', selector)


def one_of(parent, selector):
  return parent.find_element('css selector', selector)


def wait(browser, condition, seconds=120):
  from selenium.webdriver.support import ui

  return ui.WebDriverWait(browser, seconds).until(lambda _: condition())


def draw(browser, card, strokes):
  """Draw lines of points, pixels from the middle, by the mouse."""
  from selenium.webdriver import ActionChains

  canvas = one_of(card, 'canvas')
  browser.execute_script('arguments[0].scrollIntoView()', canvas)
  for first, *rest in strokes:
    actions = ActionChains(browser, duration=0)
    actions.move_to_element_with_offset(canvas, *first).click_and_hold()
    for point in rest:
      actions.move_to_element_with_offset(canvas, *point)
    actions.release().perform()


def images(card):
  """The thumbnails of a card, as Pillow reads them."""
  urls = [image.get_attribute('src') for image in all_of(card, 'img')]
  parts = [base64.b64decode(url.partition(',')[2]) for url in urls]
  return [Image.open(io.BytesIO(part)).convert('L') for part in parts]


def press(browser, selector):
  """Press a button by the keyboard."""
  button = one_of(browser, selector)
  browser.execute_script('arguments[0].focus()', button)
  button.send_keys('\ue007')  # Enter


@pytest.mark.slow
def test_drawings_and_files_are_classified_as_by_the_task(
  page, model, tmp_path
):
  square = np.full((40, 40), 255, np.uint8)
  square[10:30, 10:30] = 0
  Image.fromarray(square).save(tmp_path / 'square.png')
  cards = all_of(page, '#classes .card')
  for card, name in zip(cards, NAMES):
    field = one_of(card, 'input[type=text]')
    field.clear()
    field.send_keys(name)
    for _ in range(2):
      draw(page, card, STROKES[name])
      one_of(card, '.add').click()
  drawing = np.asarray(images(cards[0])[0])
  middle = len(drawing) // 2
  assert drawing[middle, middle] == drawing[middle, middle + 40] == 0
  assert drawing[middle - 40, middle - 40] == drawing[0, 0] == 255
  queries = one_of(page, '#queries .card')
  encoded = base64.b64encode((tmp_path / 'square.png').read_bytes()).decode()
  page.execute_script(DROP, queries, encoded, 'square.png')
  path = str(tmp_path / 'square.png')
  one_of(queries, 'input[type=file]').send_keys(path)
  wait(page, lambda: len(images(queries)) == 2)
  draw(page, queries, STROKES['ring'])  # without pressing "Add drawing"
  press(page, '#classify')
  wait(page, lambda: one_of(page, '#status').text == 'Done.')
  support = [image for card in cards for image in images(card)]
  task = model.adapt(support, np.repeat(NAMES, 2)).with_temperature(2)
  p = task.predict_proba(images(queries))
  rows = all_of(page, '#predictions > li')
  found = [
    [float(s.text[:-1]) / 100 for s in all_of(row, '.bar span:last-child')]
    for row in rows
  ]
  np.testing.assert_allclose(found, p, atol=0.00051)
  names = [one_of(row, '.verdict').text for row in rows]
  assert names == task.classes[p.argmax(axis=1)].tolist()
  assert found[0] == found[1] and 'doubt' in rows[0].text
  assert 'Perhaps none of the classes' in rows[0].text
  accuracy = 100 * task.report['leave_one_out']['accuracy']
  assert f'{accuracy:.0f}% of 4 examples' in one_of(page, '#report').text
  assert len(all_of(page, '#filters canvas')) == 6
  width = 'return document.documentElement.scrollWidth'
  assert page.execute_script(width) <= 375
  assert page.get_log('browser') == []


@pytest.mark.slow
def test_a_mistake_is_told_and_images_and_classes_can_be_removed(page):
  press(page, '#add-class')
  assert not one_of(page, '#add-class').is_enabled()  # the model takes 3
  press(page, '#classify')
  error = one_of(page, '#error')
  assert error.text == 'Draw or choose an image to classify.'
  draw(page, one_of(page, '#queries .card'), STROKES['ring'])
  press(page, '#classify')
  wait(page, lambda: error.text == "class 'class 1' has no image; add one")
  assert len(images(one_of(page, '#queries'))) == 1
  press(page, '#queries .thumbs button')
  assert images(one_of(page, '#queries')) == []
  press(page, '#classes .remove')
  left = all_of(page, '#classes input[type=text]')
  assert [field.get_property('value') for field in left] == [
    'class 2',
    'class 3',
  ]
  assert not any(b.is_enabled() for b in all_of(page, '#classes .remove'))
  lines = page.get_log('browser')
  assert all('400 (Bad Request)' in line['message'] for line in lines), lines
