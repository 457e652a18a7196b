"""Our own speed: updates, their parts, and operations counted."""
