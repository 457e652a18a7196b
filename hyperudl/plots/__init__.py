"""Draws figures of runs; each kind of figure has its own file."""
