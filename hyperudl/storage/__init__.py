"""Checkpoints, metrics and files that survive kills and full disks."""
