"""A lock that allows one writer per run. It lies beside the folder, because thinning replaces the folder."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import filelock

from throughtime._errors import StoreError


def lock_file(path: Path) -> Path:
    """Where the lock of a run lies while it is written."""
    whole = path.resolve()
    return whole.with_name(f".{whole.name}.lock")


class Lock:
    """Reserves a run's path for one writer until `release`; its parents are created.

    A path that has a writer already, or cannot be written, raises StoreError.
    """

    def __init__(self, path: Path) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # The path is resolved so that two names of one run share a lock.
            self._file = lock_file(path)
            self._lock = filelock.FileLock(self._file)
            while not self._acquired():
                self._lock.release()
        except filelock.Timeout:
            raise StoreError(
                f"{path} has a writer already: another process or monitor is recording into it."
            ) from None
        except OSError as error:
            raise StoreError(f"{path} cannot be written: {error}. Pass another path.") from None

    def _acquired(self) -> bool:
        """Lock the file; False where its last holder removed it meanwhile: it has no name then."""
        self._file.touch()
        before = _inode(self._file)
        self._lock.acquire(timeout=0)
        return before is not None and before == _inode(self._file)

    def release(self) -> None:
        """Let others write; the file goes first, while nobody else can hold it."""
        if self._lock.is_locked:
            with suppress(OSError):  # Windows keeps a file that is open
                self._file.unlink()
        self._lock.release()


def _inode(file: Path) -> int | None:
    try:
        return file.stat().st_ino
    except FileNotFoundError:
        return None
