"""Network modules (flax.linen), used only through `init` and `apply`."""
