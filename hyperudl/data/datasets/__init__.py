"""Image sets: readers of public formats, and their train and test splits."""

from hyperudl.data.datasets.dataset import Dataset
from hyperudl.data.datasets.dataset import load

__all__ = ('Dataset', 'load')
