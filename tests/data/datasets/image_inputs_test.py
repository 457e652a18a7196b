"""Images are made like those that a network was trained on."""

import numpy as np
from PIL import Image
import pytest

from hyperudl.data.datasets import image_file
from hyperudl.data.datasets import image_inputs
from tests.testing import errors

Inputs = image_inputs.Inputs


def drawings(count=20, ground=0, ink=255):
  """Drawings uint8[count, 8, 8, 1] of one stroke each."""
  images = np.full((count, 8, 8, 1), ground, np.uint8)
  for row, image in enumerate(images):
    image[2:6, 1 + row % 6] = ink
  return images


def test_the_polarity_of_a_set_is_found():
  describe = lambda images: image_inputs.describe(images, 'pad').polarity
  light = drawings()
  assert describe(light) == 'light_on_dark'
  assert describe(255 - light) == 'dark_on_light'
  mixed = np.concatenate([light, 255 - light])
  assert describe(mixed) == 'any'
  assert describe(drawings(ground=120)) == 'any'
  assert describe(np.repeat(light, 3, axis=-1)) == 'any'  # may be photographs
  noise = np.random.default_rng(0).integers(0, 256, (50, 8, 8, 1), np.uint8)
  assert describe(noise) == 'any'
  assert image_inputs.describe(light, 'crop') == Inputs(
    8, 8, 1, 'light_on_dark', 'crop'
  )


def test_a_drawing_of_the_other_polarity_is_inverted():
  light = drawings(1)[0]
  for polarity, expected in (
    ('light_on_dark', light),
    ('dark_on_light', 255 - light),
  ):
    inputs = Inputs(8, 8, 1, polarity)
    for image in (light, 255 - light):
      np.testing.assert_array_equal(
        image_inputs.convert(image, inputs), expected
      )
  scan = np.clip(255 - light, 60, 200)  # gray ink on gray paper
  inverted = image_inputs.convert(scan, Inputs(8, 8, 1, 'light_on_dark'))
  np.testing.assert_array_equal(inverted, 255 - scan)
  kept = image_inputs.convert(255 - light, Inputs(8, 8, 1))
  np.testing.assert_array_equal(kept, 255 - light)


@pytest.mark.parametrize(
  'fit, expected',
  [
    # 8 x 4 pixels: ground 10 with a square of 90 in the middle, made 4 x 4.
    ('pad', [[10] * 4, [10, 90, 90, 10], [10, 90, 90, 10], [10] * 4]),
    ('crop', [[90] * 4] * 4),
    ('squash', [[10, 90, 90, 10]] * 4),
  ],
)
def test_another_aspect_ratio_is_padded_cropped_or_squashed(fit, expected):
  wide = np.full((4, 8, 1), 10, np.uint8)
  wide[:, 2:6] = 90
  if fit == 'pad':  # the border's median must be that of the ground
    wide = np.full((8, 16, 1), 10, np.uint8)
    wide[:, 4:12] = 90
    wide[0] = wide[-1] = 10
  inputs = Inputs(4, 4, 1, fit=fit)
  found = image_inputs.convert(wide, inputs)[..., 0].astype(int)
  # The filter reaches over the edges of the square.
  assert np.abs(found - np.array(expected)).max() <= (
    45 if fit == 'pad' else 12
  )
  assert np.abs(found[:, [0, 3]] - np.array(expected)[:, [0, 3]]).max() <= 12


def test_files_arrays_and_images_of_pillow_are_read_alike(tmp_path):
  rng = np.random.default_rng(3)
  pixels = rng.integers(0, 256, (20, 13, 3), np.uint8)
  image = Image.fromarray(pixels)
  image.save(tmp_path / 'a.png')
  for inputs in (Inputs(8, 8, 3), Inputs(8, 6, 1, fit='crop')):
    read = image_inputs.read(tmp_path / 'a.png', inputs)
    assert read.shape == inputs.shape
    for form in (pixels, image):
      np.testing.assert_array_equal(image_inputs.convert(form, inputs), read)


def test_the_border_of_an_image_is_each_outer_pixel_once():
  image = np.arange(20).reshape(4, 5, 1)
  expected = [*range(6), 9, 10, 14, *range(15, 20)]
  assert sorted(image_file.border(image)[:, 0].tolist()) == expected


def test_a_description_is_read_as_written_or_refused():
  inputs = Inputs(3, 4, 1, 'dark_on_light', 'squash')
  assert image_inputs.from_dict(inputs.to_dict()) == inputs
  for change in (
    {'height': 0},
    {'height': 1.5},
    {'polarity': 'x'},
    {'fit': 'x'},
    {'more': 1},
  ):
    values = {**inputs.to_dict(), **change}
    errors.refusal(image_inputs.from_dict, values, error=ValueError)
  errors.refusal(image_inputs.convert, np.zeros((2, 2, 1)), Inputs(2, 2, 2))
