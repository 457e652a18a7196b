"""Draws episodes from a data set: indices, augmentation and shifts, by key."""

from hyperudl.data.episodes.draw import check_fits
from hyperudl.data.episodes.draw import make_draw
from hyperudl.data.episodes.keys import eval_keys
from hyperudl.data.episodes.keys import train_keys

__all__ = ('check_fits', 'eval_keys', 'make_draw', 'train_keys')
