"""The channel that was perhaps meant by a name that there is not."""

from __future__ import annotations

import contextlib

from .._system import system
from ..errors import ChannelError


def near_name(name: str) -> str | None:
    """Return the name of a channel that is like `name` and not the same, if there is one."""
    others: list[str] = []
    with contextlib.suppress(ChannelError):  # Windows does not tell the names
        others = [each for each in system.channels() if each != name]
    if not others:
        return None
    import difflib  # slow to import

    return next(iter(difflib.get_close_matches(name, others, 1)), None)
