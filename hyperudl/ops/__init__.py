"""Pure array functions: losses, gradient descent, clustering, image warps."""
