"""Types, errors, configs, command line and processes, known to all packages."""

from hyperudl.core.errors import BadInput
from hyperudl.core.errors import Busy
from hyperudl.core.errors import Error
from hyperudl.core.errors import NonFinite
from hyperudl.core.errors import OutOfMemory
from hyperudl.core.errors import PeerLost
from hyperudl.core.errors import Unreadable
from hyperudl.core.errors import Unwritable
from hyperudl.core.types import NO_IMAGE
from hyperudl.core.types import Episode
from hyperudl.core.types import Examples
from hyperudl.core.types import Learner
from hyperudl.core.types import PyTree
from hyperudl.core.types import TrainState

__all__ = (
  'NO_IMAGE',
  'BadInput',
  'Busy',
  'Episode',
  'Error',
  'Examples',
  'Learner',
  'NonFinite',
  'OutOfMemory',
  'PeerLost',
  'PyTree',
  'TrainState',
  'Unreadable',
  'Unwritable',
)
