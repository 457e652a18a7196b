"""Draws figures of runs, one file for each kind of figure."""
