"""The channel that was perhaps meant by a name that there is not."""

from __future__ import annotations

import contextlib

from .. import inspection
from ..errors import ChannelError


def near_name(name: str) -> str | None:
    """Return the name of a channel that is like `name` and not the same, if there is one."""
    import difflib  # slow to import

    with contextlib.suppress(ChannelError):  # Windows does not tell the names
        others = [each for each in inspection.channels() if each != name]
        return next(iter(difflib.get_close_matches(name, others, 1)), None)
    return None
