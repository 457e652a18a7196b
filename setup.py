"""Packaging of hyperudl. Exact tested versions: constraints.txt."""

import pathlib
import re

import setuptools

HERE = pathlib.Path(__file__).parent
VERSION = re.search(
  r"__version__ = '([^']+)'", (HERE / 'hyperudl/__init__.py').read_text()
).group(1)

setuptools.setup(
  name='hyperudl',
  version=VERSION,
  description='Networks that generate networks: meta-learning in JAX',
  long_description=(HERE / 'README.md').read_text('utf-8'),
  long_description_content_type='text/markdown',
  license='Apache-2.0',
  classifiers=[
    'Programming Language :: Python :: 3.11',
    'Topic :: Scientific/Engineering :: Artificial Intelligence',
  ],
  packages=[
    *setuptools.find_packages(include=['hyperudl', 'hyperudl.*']),
    'hyperudl.configs',  # for --config=NAME, from any folder
  ],
  package_dir={'hyperudl.configs': 'configs'},
  package_data={
    'hyperudl.data.datasets': ['*.npz'],
    'hyperudl.models': ['*.npz'],
    'hyperudl.models.demo': ['page.*'],
    'hyperudl.configs': ['splits/*.txt'],
  },
  entry_points={'console_scripts': ['hyperudl = hyperudl.models.command:main']},
  python_requires='>=3.11',
  install_requires=[
    'jax>=0.10.2,<0.12',
    'flax>=0.12.8,<0.14',
    'optax>=0.2.8',
    'orbax-checkpoint>=0.12,<0.13',
    'chex>=0.1.92',
    'ml-collections>=1.1',
    'tensorflow-datasets>=4.9.10',
    # tensorflow-datasets uses it without declaring it.
    'importlib_resources',
    'absl-py',
    'numpy>=2.0',
    'scipy>=1.14',
    'tensorboardX>=2.6',
    'tensorboard>=2.20',
    'matplotlib>=3.9',
    'pillow',
    'pooch>=1.8',
    # Locks of files that work on Windows too; version 4 keeps the number of the
    # process that holds one in the file.
    'filelock>=4',
  ],
  extras_require={
    'cuda': ['jax[cuda]>=0.10.2,<0.12'],
    # Peers to compare speeds with (`experiments/peers/`); a CPU build will do.
    'bench': ['torch==2.13.0'],
    # Features of images and questions by CLIP: `python -m
    # hyperudl.data.language.clip_features`.
    # Version 5 has no Flax models.
    'clip': ['transformers>=4.57,<5'],
    # Photographs of phones: HEIC files.
    'heic': ['pillow-heif>=0.18'],
    # `Task.export` and `hyperudl export`: .onnx, .safetensors, and .stablehlo,
    # which jax writes by flatbuffers without declaring it.
    'export': ['onnx>=1.18', 'safetensors>=0.5', 'flatbuffers>=25'],
    # t-SNE of features: `plots --kind=tsne`.
    'tsne': ['scikit-learn>=1.5'],
    # Tables of results: `python -m experiments.run`.
    'experiments': ['pandas>=2.2', 'tabulate>=0.9'],
    # The site: `mkdocs build`. nbconvert makes a page of the tutorial.
    'docs': [
      'mkdocs>=1.6,<2',
      'mkdocs-material>=9.6,<10',
      'mkdocstrings[python]>=1.0',
      'nbconvert>=7.16',
    ],
    'test': [
      'flatbuffers>=25',
      'import-linter>=2.1',
      # The tutorial is run by a test, in a kernel of its own.
      'ipykernel>=6.29',
      'mypy>=1.15',
      'nbclient>=0.10',
      'nbformat>=5.10',
      'onnx>=1.18',
      'onnxruntime>=1.22',
      'pandas>=2.2',
      'pytest>=8',
      'pytest-xdist>=3.6',
      'ruff>=0.9',
      'safetensors>=0.5',
      'scikit-learn>=1.5',
      # Drives Chromium in the test of the page of `hyperudl demo`.
      'selenium>=4.20',
      'tabulate>=0.9',
      'transformers>=4.57,<5',
    ],
  },
)
