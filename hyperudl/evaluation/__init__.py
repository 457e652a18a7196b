"""Evaluates checkpoints: fixed episodes, intervals, calibration."""
