"""One writer for a run: the lock lies beside the folder, which a thinning exchanges for another."""

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
    """Holds a run's path for one writer until `release`.

    Parameters
    ----------
    path : Path
        Of the run; its parents are made.

    Raises
    ------
    StoreError
        There is a writer, or nothing can be written there.
    """

    def __init__(self, path: Path) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # Resolved: two names of one run have one lock.
            self._file = lock_file(path)
            self._lock = filelock.FileLock(self._file)
            while not self._acquired():
                self._lock.release()
        except filelock.Timeout:
            raise StoreError(
                f"{path} has a writer already: another process or monitor is recording it."
            ) from None
        except OSError as error:
            raise StoreError(f"{path} cannot be written: {error}. Give another path.") from None

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
