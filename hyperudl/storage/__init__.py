"""Saves checkpoints and metrics; a kill or a full disk loses no run."""
