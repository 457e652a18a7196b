"""Pure functions of arrays: losses, gradient descent, clustering, tokens."""
