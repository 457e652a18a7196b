"""Training: set-up, the jitted update over episodes, optimizers, input."""
