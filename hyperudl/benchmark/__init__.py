"""Measures the speed of updates and of their parts, and counts operations."""
