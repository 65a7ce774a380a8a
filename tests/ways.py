"""The ways in which an end waits, as code: to be run here, and in processes that are killed, or stopped."""

from __future__ import annotations

import os
from typing import Any

# Waits at `end` until the next byte can be moved, or moving one would raise an error.  Those that
# only prepare a wait leave it to the call that moves the byte.
WAYS = {
    "stream": "",
    "answer": "from mmapipc._ring import ring; ring.wrote = True",
    "answer, at once": "from mmapipc._ring import ring; ring.wrote = True; end._link.waiter._park_at_once(1)",
    "poll": "end.poll(60)",
    "wait": "mmapipc.wait([end], 60)",
    "event loop": """
while end.bell.arm():
    if os.name == "nt":
        import _winapi
        _winapi.WaitForSingleObject(end.bell.handle, LONGEST)
    else:
        import select
        select.select([end.bell], [], [], LONGEST / 1000)
""",
}
# Where nobody is woken an end that waits for an answer naps as any other, and an event loop has no bell.
if "MMAPIPC_NO_BELLS" in os.environ:
    for _way in ("answer", "answer, at once", "event loop"):
        del WAYS[_way]

# Only who reads waits for an answer.
SENDING = [way for way in WAYS if not way.startswith("answer")]

# Milliseconds after which an event loop looks, whatever has rung: who is killed rings nobody.
LONGEST = 500


def function(way: str, longest: int = LONGEST) -> str:
    """The source of `until_ready(end)`, which waits in that way."""
    body = WAYS[way].replace("LONGEST", str(longest)) or "pass"
    lines = [f"    {line}\n" for line in body.splitlines() if line]
    return "import os\ndef until_ready(end):\n" + "".join(lines)


def here(way: str, longest: int = LONGEST) -> Any:
    """`until_ready`, for this process."""
    import mmapipc

    names: dict[str, Any] = {"mmapipc": mmapipc}
    exec(function(way, longest), names)
    return names["until_ready"]
