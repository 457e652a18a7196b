"""Measures speed: of updates, their parts, and operations counted."""
