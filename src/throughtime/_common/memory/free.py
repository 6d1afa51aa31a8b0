"""Reads how much memory is free, and returns freed memory to the system.

`budget` compares the estimate of a capture with it before anything runs.
"""

import ctypes
import gc
import math
import sys
import time
import weakref
from functools import cache, lru_cache
from pathlib import Path

import numpy as np
import psutil

_LIMITS = (  # limit, use, and the part of the use that can be dropped; control groups of version 2, then 1
    ("memory.max", "memory.current", "inactive_file"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)
_GROUPS = Path("/sys/fs/cgroup")
_SECONDS = 0.5
_MOST_BYTES = 2**29  # of trees between two searches for those that nobody holds


def available() -> int:
    """Return the bytes that can be allocated without swapping.

    On Linux a control group, as in a container or a batch job, can leave less memory to this process than the
    system has. The value is cached for half a second, because reading it takes as long as a small capture.
    """
    return _available(int(time.monotonic() / _SECONDS))


@lru_cache(maxsize=1)
def _available(moment: int) -> int:
    limits = [_of_group(folder) for folder in _groups(Path("/proc/self/cgroup"))]
    return min([int(psutil.virtual_memory().available), *(limit for limit in limits if limit is not None)])


class Trees:
    """Frees trees to which nothing refers any more, whenever they and the new ones may take much memory.

    A tree refers to itself, so only Python's garbage collector frees it, and that counts objects, not bytes:
    it may not have run after twenty captures. Reusing memory is also faster than requesting new memory.
    """

    def __init__(self) -> None:
        self._size = self._searches = 0

    def add(self, tree: object, size: int) -> None:
        """Count the bytes of a new tree until it is freed, or a search has found references to it."""
        if self._size + size > min(_MOST_BYTES, (available() or math.inf) / 8) and gc.isenabled():
            self._size, self._searches = 0, self._searches + 1
            gc.collect()
        self._size += size
        weakref.finalize(tree, self._freed, self._searches, size).atexit = False

    def _freed(self, searches: int, size: int) -> None:
        if searches == self._searches:
            self._size -= size


trees = Trees()


def release() -> None:
    """Return freed memory to the system, if the C library is glibc, which otherwise keeps it."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


@cache
def keep() -> None:
    """Make glibc keep what captures free, up to 64 MB, instead of requesting it anew for each capture.

    It keeps up to twice the size of the largest array, of at most 32 MB, that it has freed so far. The array
    freed here is never written, so that it takes no memory.
    """
    np.empty(2**25 - 2**14, np.uint8)


def _groups(membership: Path) -> list[Path]:
    """List the folders of this process's control groups that may limit memory, and their parents."""
    folders = []
    for line in _read(membership).splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers in ("", "memory"):
            root = _GROUPS / controllers
            inner = root / path.strip("/")
            folders += [inner, *(folder for folder in inner.parents if folder.is_relative_to(root))]
    return folders


def _of_group(folder: Path) -> int | None:
    """Return the memory that one control group leaves; None if it sets no limit."""
    for limit, used, droppable in _LIMITS:
        most, now = _read(folder / limit).strip(), _read(folder / used).strip()
        if most.isdigit() and now.isdigit():
            stat = dict(line.split(" ", 1) for line in _read(folder / "memory.stat").splitlines())
            return max(0, int(most) - int(now) + int(stat.get(droppable, 0)))
    return None


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""
