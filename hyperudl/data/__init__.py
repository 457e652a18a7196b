"""Image sets, episodes, augmentation, distribution shifts and conversion."""
