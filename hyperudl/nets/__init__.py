"""Networks as pure functions or flax modules, used by `init` and `apply`."""
