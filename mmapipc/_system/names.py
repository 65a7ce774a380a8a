"""From the name that a person gives to one that every system takes."""

from __future__ import annotations

from ..errors import InvalidName, MappingExists, NameTaken

SENDER = "sender"
RECEIVER = "receiver"
# In a ring file only: begin a stream, or attach to one; each lasts a moment.
CHANGER = "changer"
ROLES = (SENDER, RECEIVER, CHANGER)
PEER = {SENDER: RECEIVER, RECEIVER: SENDER}

_PLAIN = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-")
_PREFIXES = ("Global\\", "Local\\")
LONGEST_NAME = 200  # characters once encoded: a file name has room for 255 bytes


class Place:
    """Where a channel is.  Found once for each end: a process may change directory or user.

    `name` is as given, for messages; `location` as the system knows it: a
    tagname, an absolute path.  An open file of the user's has its descriptor.
    """

    def __init__(self, name: str, location: str, descriptor: int | None = None) -> None:
        self.name = name
        self.location = location
        self.descriptor = descriptor

    def of(self, part: str) -> str:
        """The location of something that belongs to the channel.  `+` is in no encoded name."""
        return f"{self.location}+{part}"


def split(name: str) -> tuple[str, str]:
    """Split off a leading `Global\\` or `Local\\`; return (prefix, encoded rest).

    The rest keeps A-Z a-z 0-9 . _ - and has every other character
    percent-encoded as UTF-8, so it is ASCII (before Python 3.11.8 `tagname`
    went through the ANSI code page) and two names never become one.  Raises
    InvalidName.
    """
    prefix = ""
    for known in _PREFIXES:
        if name.startswith(known):
            prefix, name = known, name[len(known) :]
            break
    encoded = name
    if not _PLAIN.issuperset(name):
        from urllib.parse import quote  # slow to import, and most names do without

        # Half a surrogate pair can be in a name that came from the command line.
        encoded = quote(name, safe="", errors="surrogatepass").replace("~", "%7E")
    if not encoded:
        raise InvalidName("(no name): the name must have at least 1 character")
    if len(encoded) > LONGEST_NAME:
        raise InvalidName(
            f"{name[:20]}...: the name has {len(encoded)} characters when it is encoded; "
            f"use at most {LONGEST_NAME}"
        )
    return prefix, encoded


def other_kind(place: Place, role: str) -> NameTaken:
    """The error for the name of a channel at which somebody has that role."""
    return NameTaken(f"{place.name}: the name belongs to a channel with a {role}; use another name")


def other_backing(place: Place, file: bool) -> NameTaken:
    """The error for a name that was made without the file that is given, or with one that is not."""
    if file:
        taken = "memory without a file; leave the file out"
    else:
        taken = "a mapping of a file; give the file too"
    return NameTaken(f"{place.name}: the name belongs to {taken}, or use another name")


def there_already(place: Place) -> MappingExists:
    """The error for what was to be new."""
    return MappingExists(f"{place.name}: it exists already, and was to be new; use another name or file")


def join(encoded: str) -> str:
    """The name that `split` encodes so.  Raises InvalidName when there is none."""
    from urllib.parse import unquote_to_bytes

    try:
        name = unquote_to_bytes(encoded).decode(errors="surrogatepass")
    except UnicodeError:
        name = ""
    if name.startswith(_PREFIXES):
        name = f"Local\\{name}"  # otherwise `split` would take that for the prefix
    if split(name)[1] != encoded:
        raise InvalidName(f"{encoded}: no name has this encoded form")
    return name
