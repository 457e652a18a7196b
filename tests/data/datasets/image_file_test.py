"""One image file is read as a viewer shows it, whatever its format."""

import io
import struct
import sys
import types

import numpy as np
from PIL import Image
from PIL import ImageOps
import pytest

from hyperudl.data.datasets import image_file
from tests.testing import errors
from tests.testing import image_sets


def encoded(image, form='PNG', **options):
  buffer = io.BytesIO()
  image.save(buffer, form, **options)
  return buffer.getvalue()


def photo(height=8, width=6, channels=3):
  return Image.fromarray(
    image_sets.pixels(1, 1, 16, channels)[0, 0][:height, :width]
  )


def drawn_on_clear(ink, size=8):
  """RGBA image with a cross of `ink` on a transparent ground."""
  pixels = np.zeros((size, size, 4), np.uint8)
  pixels[size // 2, :] = pixels[:, size // 2] = (*ink, 255)
  return Image.fromarray(pixels)


@pytest.mark.parametrize('orientation', range(1, 9))
@pytest.mark.parametrize('form', ['PNG', 'JPEG', 'TIFF', 'WEBP'])
def test_exif_orientation_is_as_a_viewer_shows_it(form, orientation):
  exif = Image.Exif()
  exif[0x112] = orientation
  data = encoded(photo(), form, exif=exif)
  wanted = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
  pixels = image_file.decode(data, 'here')
  assert np.array_equal(pixels, np.asarray(wanted.convert('RGB')))
  assert pixels.shape[0] == (6 if orientation >= 5 else 8)


def test_exif_data_that_cannot_be_read_turn_nothing():
  data = encoded(photo(), 'JPEG', exif=b'Exif\x00\x00MM\x00*\xff\xff\xff\xff')
  with image_file.without_warnings():
    assert image_file.decode(data, 'here').shape == (8, 6, 3)


@pytest.mark.parametrize(
  'ink, ground',
  [
    ((255, 255, 255), 0),
    ((240, 240, 240), 0),
    ((0, 0, 0), 255),
    ((150, 150, 150), 255),
    ((255, 255, 0), 255),
  ],
)
@pytest.mark.parametrize('gray', [True, False])
def test_a_transparent_ground_keeps_the_contrast(ink, ground, gray):
  pixels = image_file.decode(encoded(drawn_on_clear(ink)), 'here', gray=gray)
  assert (pixels[0, 0] == ground).all()
  assert np.ptp(pixels) > 25


def test_a_transparent_colour_of_a_palette_keeps_the_contrast():
  image = Image.new('P', (4, 4), 0)
  image.putpalette([255, 255, 255, 255, 255, 255])
  image.putpixel((1, 2), 1)
  data = encoded(image, 'GIF', transparency=0)
  pixels = image_file.decode(data, 'here', gray=True)
  assert pixels[2, 1] == 255 and pixels.sum() == 255


@pytest.mark.parametrize(
  'form, lossless',
  [
    ('PPM', True),
    ('JPEG2000', True),
    ('WEBP', True),
    ('TIFF', True),
    ('BMP', True),
    ('JPEG', False),
    ('AVIF', False),
  ],
)
def test_formats(form, lossless):
  options = {'lossless': True} if form == 'WEBP' else {}
  smooth = np.add.outer(np.arange(32), np.arange(32)).astype(np.uint8)
  image = Image.fromarray(np.stack([smooth] * 3, -1))
  pixels = image_file.decode(encoded(image, form, **options), 'here')
  difference = np.abs(pixels.astype(int) - np.asarray(image))
  assert difference.max() <= (0 if lossless else 16)


def test_endings_of_the_formats():
  wanted = '.ppm .pgm .jfif .jpe .jp2 .avif .jpg .png .tif .webp'
  assert set(wanted.split()) <= set(image_file.endings())


def test_heic_files_are_read_by_a_plug_in(monkeypatch):
  """A stand-in for `pillow_heif` that takes PNG files for HEIC ones."""
  plugin = types.ModuleType('pillow_heif', 'A stand-in.')
  plugin.__spec__ = types.SimpleNamespace(name='pillow_heif')
  factory, _ = Image.OPEN['PNG']
  plugin.register_heif_opener = lambda: Image.register_open(
    'HEIF',
    lambda file, name: factory(io.BytesIO(file.read()[4:]), name),
    lambda prefix: prefix.startswith(b'heic'),
  )
  monkeypatch.setitem(sys.modules, 'pillow_heif', plugin)
  monkeypatch.setattr(Image, 'OPEN', dict(Image.OPEN))
  monkeypatch.setattr(Image, 'ID', list(Image.ID))
  image_file.clear_caches()
  try:
    assert '.heic' in image_file.endings()
    data = b'heic' + encoded(photo())
    assert image_file.decode(data, 'here').shape == (8, 6, 3)
  finally:
    image_file.clear_caches()


def test_gray_images_have_one_channel_unless_asked():
  data = encoded(photo(channels=None))
  assert image_file.decode(data, 'here').shape == (8, 6, 1)
  colour = image_file.decode(data, 'here', gray=False)
  assert colour.shape == (8, 6, 3) and np.ptp(colour, axis=2).max() == 0
  assert image_file.decode(encoded(photo()), 'here', gray=True).ndim == 3


# 100 * 65535 / 255 = 25700; 32767 is 127.498 of 255, 32768 is 127.502.
WIDE = np.uint16([[0, 25700, 32767], [32768, 65406, 65535]])
NARROW = [[0, 100, 127], [128, 254, 255]]  # 65406 is 254.498


@pytest.mark.parametrize('form', ['PNG', 'TIFF', 'PPM'])
@pytest.mark.parametrize('gray', [None, True, False])
def test_gray_levels_of_16_bits_are_scaled_by_their_range(form, gray):
  data = encoded(Image.fromarray(WIDE), form)
  pixels = image_file.decode(data, 'here', gray=gray)
  assert pixels.shape == (2, 3, 3 if gray is False else 1)
  assert (pixels == np.array(NARROW)[..., None]).all()


BYTES = {  # of two rows of two gray levels
  8: [0, 127, 128, 255],
  12: [0x00, 0x07, 0xFF, 0x80, 0x0F, 0xFF],  # 0, 2047; 2048, 4095
  16: [0, 0, 0xFF, 0x7F, 0, 0x80, 0xFF, 0xFF],  # low bytes come first
}


# Pillow does not read files of 12 bits where white is zero.
@pytest.mark.parametrize(
  'bits, black_is_zero', [(8, 1), (8, 0), (12, 1), (16, 1), (16, 0)]
)
def test_gray_levels_of_a_tiff_are_scaled_by_their_bits(bits, black_is_zero):
  data = tiff(2, 2, bits, bytes(BYTES[bits]), black_is_zero)
  pixels = image_file.decode(data, 'here')
  wanted = [[0, 127], [128, 255]] if black_is_zero else [[255, 128], [127, 0]]
  assert pixels[..., 0].tolist() == wanted


def tiff(width, height, bits, strip, black_is_zero):
  """A gray TIFF file by hand: header, one directory, one strip."""
  short, long = 3, 4
  rows = [
    (256, short, width),
    (257, short, height),
    (258, short, bits),
    (259, short, 1),  # not compressed
    (262, short, black_is_zero),
    (273, long, 8 + 2 + 12 * 8 + 4),  # where the strip begins
    (278, short, height),
    (279, long, len(strip)),
  ]
  entries = b''.join(struct.pack('<HHII', t, kind, 1, v) for t, kind, v in rows)
  head = struct.pack('<2sHIH', b'II', 42, 8, len(rows))
  return head + entries + struct.pack('<I', 0) + strip


def test_images_of_16_bits_are_turned_and_lie_on_a_clear_ground():
  exif = Image.Exif()
  exif[0x112] = 6
  data = encoded(Image.fromarray(WIDE), exif=exif)
  turned = image_file.decode(data, 'here')[..., 0]
  assert turned.tolist() == [[128, 0], [254, 100], [255, 127]]
  data = encoded(Image.fromarray(WIDE), transparency=0)
  on_white = image_file.decode(data, 'here', gray=True)[..., 0]
  assert on_white.tolist() == [[255, 100, 127], [128, 254, 255]]


@pytest.mark.parametrize('kind', [np.int32, np.float32])
def test_numbers_of_no_known_range_are_refused(kind):
  data = encoded(Image.fromarray(WIDE.astype(kind)), 'TIFF')
  message = errors.refusal(image_file.decode, data, 'x.tif')
  assert message.startswith('x.tif: pixels of mode')


def test_a_program_in_place_of_an_image_is_not_started():
  words = b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\n%%EndComments\n'
  message = errors.refusal(image_file.decode, words, 'x.png')
  assert message.startswith('x.png: not an image file')


def test_a_file_without_permission_is_not_called_damaged(monkeypatch, tmp_path):
  path = tmp_path / '1.png'
  path.write_bytes(encoded(photo()))

  def forbidden(*_):
    raise PermissionError(13, 'Permission denied')

  monkeypatch.setattr('builtins.open', forbidden)
  message = errors.refusal(image_file.read, str(path))
  assert 'cannot be read (Permission denied); change its perm' in message


def test_an_image_of_too_many_pixels_is_refused(monkeypatch):
  data = encoded(photo())
  monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 20)
  message = errors.refusal(image_file.decode, data, 'x.png')
  assert message.startswith('x.png: an image of more than 40 pixels')


def test_a_file_that_is_not_there_has_a_wrong_name(tmp_path):
  path = str(tmp_path / 'gone.png')
  message = errors.refusal(image_file.read, path)
  assert message == f'{path}: there is no such file; check its name'
