"""Trains learners: set-up, updates over episodes, optimizers and input."""
