"""Training runs and tables behind the pages of docs/results."""
