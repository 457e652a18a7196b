"""Data: image sets, episodes, augmentation, shifts and conversion."""
