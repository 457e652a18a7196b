"""Defines the errors that end a command with one line and an exit code."""


class Error(Exception):
  """An error shown to the user as one line; the process exits with its code."""

  exit_code: int = 1


class BadInput(Error, ValueError):
  """A bad flag, config or data set. Nothing has been written."""

  exit_code = 2


class Unreadable(Error):
  """Checkpoints exist but none can be read."""

  exit_code = 3


class NonFinite(Error):
  """A loss, gradient or parameter became NaN or infinite."""

  exit_code = 4


class Unwritable(Error):
  """A disk is full or a path cannot be written."""

  exit_code = 5


class Busy(Error):
  """Another trainer holds the working directory."""

  exit_code = 6


class PeerLost(Error):
  """Another process of a multi-process run has ended."""

  exit_code = 7


class OutOfMemory(Error):
  """A device has too little memory for a program."""

  exit_code = 8
