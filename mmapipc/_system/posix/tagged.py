"""Memory by its tagname: what `shm_open` opens by that name, whoever made it.

It is a file in the system's directory for shared memory, and lives until
somebody removes it.  Nobody needs to have it locked.
"""

from __future__ import annotations

import io
import os
import stat

from ...errors import InvalidName, InvalidSize, MemoryRefused, NameTaken, NoSuchMapping
from .. import files, names
from ..names import Place
from .memory import Memory, reserve

_DIRECTORY = "/dev/shm"
_LONGEST_TAG = 255  # bytes, NAME_MAX
_NAMELESS = getattr(os, "O_TMPFILE", 0)  # Linux


def tagged(tag: str, of_file: bool) -> Place:
    """See `contract.System`."""
    if of_file:
        raise InvalidName(f"{tag}: a mapping of a file has a tagname only on Windows; use a name, or none")
    if not (_NAMELESS and os.path.isdir(_DIRECTORY)):
        raise MemoryRefused(
            f"{tag}: a tagname needs {_DIRECTORY}, which this system does not have; use a name"
        )
    entry = tag.lstrip("/")
    try:
        length = len(os.fsencode(entry))
    except UnicodeEncodeError:
        length = 0
    if not 0 < length <= _LONGEST_TAG or "/" in entry or "\0" in entry or entry in (".", ".."):
        raise InvalidName(
            f"{tag[:20] or '(no tagname)'}: a tagname must have 1 to {_LONGEST_TAG} bytes, "
            "and no / except at its beginning"
        )
    return Place(tag, os.path.join(_DIRECTORY, entry))


def share_tagged(
    place: Place, size: int, create: bool, writable: bool, exist_ok: bool
) -> tuple[Memory, bool]:
    """See `contract.System`."""
    advice = "; change its permissions, or use access='read' or 'copy'" if writable else ""
    with files.opening(place, advice):
        while True:
            if not exist_ok and os.path.lexists(place.location):
                raise names.there_already(place)
            try:
                return _open(place, size, writable), False
            except FileNotFoundError:
                if not create:
                    raise NoSuchMapping(
                        f"{place.name}: there is no memory of that tagname; make it first"
                    ) from None
            made = _make(place, size)
            if made is not None:
                return made, True


def _open(place: Place, size: int, writable: bool) -> Memory:
    access = os.O_RDWR if writable else os.O_RDONLY
    file = files.owned(place.location, files.FLAGS | os.O_NOFOLLOW, access)
    try:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise NameTaken(f"{place.name}: {place.location} is not a regular file; use another tagname")
        if not (size or status.st_size):
            raise InvalidSize(
                f"{place.name}: {place.location} is empty: its maker has not given it a size yet"
            )
        return Memory(place, file)
    except BaseException:
        file.close()
        raise


def _make(place: Place, size: int) -> Memory | None:
    """Make it, with all its bytes before it has its name: nobody finds less.  None if there is one by now."""
    file = files.owned(_DIRECTORY, _NAMELESS | os.O_CLOEXEC, os.O_RDWR)
    try:
        descriptor = file.fileno()
        reserve(descriptor, 0, size)
        try:
            # Only with a `src_dir_fd` does this follow the link.
            os.link(f"/proc/self/fd/{descriptor}", place.location, src_dir_fd=descriptor)
        except FileExistsError:
            file.close()
            return None
        return Memory(place, file)
    except BaseException:
        file.close()
        raise
