"""Evaluates checkpoints on fixed episodes, with intervals and calibration."""
