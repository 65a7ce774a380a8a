"""The operating system's part.  `system` is one of two siblings; `contract` says what each has."""

import sys

from .names import LONGEST_NAME, PEER, RECEIVER, SENDER, Place

TYPE_CHECKING = False  # as in typing, which is slow to import
if TYPE_CHECKING:
    from .contract import System

if sys.platform == "win32":
    from .windows import system as windows

    system: "System" = windows
else:
    from .posix import system as posix

    system: "System" = posix

__all__ = ["LONGEST_NAME", "PEER", "RECEIVER", "SENDER", "Place", "system"]
