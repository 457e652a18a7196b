"""Saves checkpoints and metrics so that kills and full disks lose no run."""
