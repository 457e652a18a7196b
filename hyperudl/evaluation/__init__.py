"""Evaluation on fixed episodes: accuracy, intervals, calibration."""
