"""Few-shot and meta-learning with hypernetworks in JAX."""

__version__ = '0.1.0'
