"""Measures speed against plain torch, and of training on a large set."""
