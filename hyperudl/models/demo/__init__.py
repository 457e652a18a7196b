"""Shows a local page on which a person tries a network on own images."""
