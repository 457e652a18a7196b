"""Files that would crash, hang or take over a careless reader.

Pickles are composed of opcodes by hand, so that they hold what no pickler
writes. Each is small and names what it tries.
"""

import io
import struct
import zipfile

ADDRESS = b'\x41' * 8
_PROTOCOL = b'\x80\x04'


def text(value):
  return b'X' + struct.pack('<I', len(value)) + value.encode()


def data(value):
  return b'B' + struct.pack('<I', len(value)) + value


def number(value):
  return b'J' + struct.pack('<i', value)


def name(module, attribute):
  return f'c{module}\n{attribute}\n'.encode()


def items(*values):
  """A tuple."""
  return b'(' + b''.join(values) + b't'


def entries(*values):
  """A list."""
  return b'(' + b''.join(values) + b'l'


def call(function, *arguments):
  return function + items(*arguments) + b'R'


def dtype(spec, *state):
  made = call(name('numpy', 'dtype'), text(spec), b'\x89', b'\x88')
  return made + (items(*state) + b'b' if state else b'')


def cleared_dtype():
  """A dtype with a field of objects whose flags say that it has none."""
  made = call(
    name('numpy', 'dtype'),
    entries(items(text('a'), text('O'))),
    *(b'\x89', b'\x88'),
  )
  fields = b'}' + text('a') + items(dtype('O8'), number(0)) + b's'
  state = (
    *(number(3), text('|'), b'N', items(text('a')), fields),
    *(number(8), number(1), number(0)),
  )
  return made + items(*state) + b'b'


def array(kind, shape, content, constructor_shape=(0,)):
  """An array as NumPy pickles it."""
  made = call(
    name('numpy._core.multiarray', '_reconstruct'),
    name('numpy', 'ndarray'),
    items(*map(number, constructor_shape)),
    data(b'b'),
  )
  axes = items(*map(number, shape))
  return made + items(number(1), axes, kind, b'\x89', content) + b'b'


def _bytes_in_place_of_objects():
  frombuffer = name('numpy._core.numeric', '_frombuffer')
  ndarray = name('numpy', 'ndarray')
  shape = items(number(1))
  return {
    'objects of a buffer': call(ndarray, shape, text('O'), data(ADDRESS)),
    'objects of a cleared dtype': call(
      frombuffer, data(ADDRESS), cleared_dtype(), shape, text('C')
    ),
    'array of a cleared dtype': array(cleared_dtype(), (1,), data(ADDRESS)),
    'array of bytes as objects': array(dtype('O8'), (1,), data(ADDRESS)),
    'scalar of a cleared dtype': call(
      name('numpy._core.multiarray', 'scalar'), cleared_dtype(), data(ADDRESS)
    ),
    'new object': ndarray + items(shape) + b'\x81',
    'array without content': call(ndarray, items(number(10**5), number(10**5))),
  }


def _attributes():
  state = b'}' + text('__defaults__') + items(text('x')) + b's'
  encode = name('_codecs', 'encode')
  return {
    'attributes of a function': encode + items(b'N', state) + b'b',
    'attributes of a dtype': dtype('u1') + state + b'b',
    'attributes of a list': b']' + state + b'b',
    'state twice': array(dtype('u1'), (1,), data(b'1'))
    + items(number(1), items(number(1)), dtype('u1'), b'\x89', data(b'1'))
    + b'b',
  }


def _claims():
  long = struct.pack('<Q', 10**12)
  return {
    'memo index': b'}r' + struct.pack('<I', 2**29),
    'long bytes': b'\x8e' + long + b'abc',
    'long text': b'\x8d' + long + b'abc',
    'long frame': b'\x95' + long + b'}',
    'long integer': b'\x8b' + struct.pack('<i', 2_000_000) + b'\1' * 2_000_000,
    'long decimals': b'I' + b'9' * 200_000 + b'\n',
    'long decimals of a long': b'L' + b'9' * 2_000_000 + b'L\n',
    'large shape': array(dtype('u1'), (1000, 1000, 1000), data(b'')),
    'empty strings': array(dtype('U0'), (10**9,), data(b'')),
    'subarray': call(name('numpy', 'dtype'), text('(100000,100000)u1')),
    'large constructor': array(dtype('u1'), (1,), data(b'1'), (10**9,)),
  }


def _nesting():
  doubled = b']q\0' + b''.join(
    b']q' + bytes([i]) + b'(h' + bytes([i - 1]) + b'h' + bytes([i - 1]) + b'e'
    for i in range(1, 60)
  )
  tuples = b')q\0' + b''.join(
    b'h' + bytes([i - 1]) + b'h' + bytes([i - 1]) + b'\x86q' + bytes([i])
    for i in range(1, 60)
  )
  made = call(name('numpy', 'dtype'), tuples, b'\x89', b'\x88')
  return {
    'nested tuple as a key': b'}' + b')' + b'\x85' * 10**6 + b'K\1s',
    'nested tuple as a dtype': call(
      name('numpy', 'dtype'), b')' + b'\x85' * 10**6
    ),
    'nested lists': b']' * 10**6 + b'a' * (10**6 - 1),
    'a list in itself': b']q\0h\0a',
    'lists doubled': doubled,
    'tuples doubled': tuples,
    'tuples doubled as a dtype': array(made, (1,), data(b'1')),
    'many empty lists': b'(' + b']' * 8_000_000 + b'l',
    'colliding keys': b'}('
    + b''.join(
      b'\x8a\x0a' + (i * (2**61 - 1)).to_bytes(10, 'little') + b'N'
      for i in range(1, 50_000)
    )
    + b'u',
    'one array many times': b']('
    + array(dtype('u1'), (10**6,), data(bytes(10**6)))
    + b'q\0'
    + b'h\0' * 10**5
    + b'e',
  }


def _names():
  touch = text('touch hostile-was-here')
  return {
    'name on the stack': text('os') + text('system') + b'\x93' + items(touch),
    'instance': b"(S'touch hostile-was-here'\nios\nsystem\n",
    'object': b'(' + name('os', 'system') + touch + b'o',
    'call': call(name('os', 'system'), touch),
    'persistent id': b'Pabc\n',
    'persistent id on the stack': text('x') + b'Q',
    'extension': b'\x82\1',
    'set': b'\x8f',
    'buffer': b'\x97',
  }


def pickles():
  """Return name -> bytes; every one must be refused, wherever it is read."""
  groups = (_bytes_in_place_of_objects, _attributes, _claims, _nesting, _names)
  return {
    label: _PROTOCOL + content + b'.'
    for group in groups
    for label, content in group().items()
  }


def npy(shape, descr='|u1', content=b'', pad=118):
  header = repr({'descr': descr, 'fortran_order': False, 'shape': shape})
  size = struct.pack('<I', max(pad, len(header)))
  return b'\x93NUMPY\2\0' + size + header.encode().ljust(pad) + content


def npz(members, method=zipfile.ZIP_DEFLATED):
  file = io.BytesIO()
  with zipfile.ZipFile(file, 'w', method) as archive:
    for member, content in members:
      archive.writestr(member, content)
  return file.getvalue()


def _images():
  return 'images.npy', npy((3, 4, 6, 6), content=bytes(432))


def _one(**options):
  """A .npz file with nothing but `images`."""
  return npz([('images.npy', npy(**options))])


# File name -> function that returns its bytes, to be refused.
ARRAYS = {
  'empty strings.npz': lambda: npz(
    [_images(), ('class_names.npy', npy((10**9,), '<U0'))]
  ),
  'many classes.npz': lambda: _one(shape=(10**9, 1, 1, 1), descr='|V0'),
  'header bomb.npz': lambda: _one(shape=(1,), pad=400_000_000),
  'zip bomb.npz': lambda: _one(shape=(400, 10**6), content=bytes(4 * 10**8)),
  'many entries.npz': lambda: npz((f'{i}', b'') for i in range(20_000)),
  'fields.npz': lambda: _one(shape=(1,), descr=[('a', '<u1'), ('b', '|O')]),
  'objects.npz': lambda: _one(shape=(1,), descr='|O', content=b'N.'),
  'method.npz': lambda: npz([_images()], zipfile.ZIP_LZMA),
  'empty items.npy': lambda: npy((10**12, 1, 1, 1, 1), '|V0'),
  'empty texts.npy': lambda: npy((10**12,), '<U0'),
  'header.npy': lambda: npy((1,), pad=50_000_000),
  'nested header.npy': lambda: b'\x93NUMPY\1\0\xd0\x07' + b'(' * 2000,
  'minus header.npy': lambda: b'\x93NUMPY\1\0\xd0\x07' + b'-' * 1999 + b'1',
  'axes.npy': lambda: npy((1,) * 64, content=b'1'),
  'negative.npy': lambda: npy((-1, -1, 1, 1, 1), content=b'1'),
}
