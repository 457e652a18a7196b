"""Tasks with language: questions about images, and their answers as strings."""
