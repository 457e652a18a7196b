"""Messages of refused calls."""

from collections.abc import Callable

import pytest

from hyperudl import core


def refusal(
  call: Callable, *arguments, error: type[Exception] = core.BadInput, **options
) -> str:
  """Return the message with which a call is refused, which must be one line."""
  with pytest.raises(error) as caught:
    call(*arguments, **options)
  message = str(caught.value)
  assert '\n' not in message, message
  return message
