"""A lock that allows one writer per run, and the removal of a run that is replaced by another.

The lock lies beside the folder, because thinning replaces the folder.
"""

import os
import re
import shutil
from contextlib import suppress
from pathlib import Path

import filelock

from throughtime._errors import StoreError
from throughtime._store.codecs import DamageError
from throughtime._store.files import Folder
from throughtime._store.schema import COMMIT, SUMS_KEY, VERSION_KEY
from throughtime._store.validate import MOST_COMMIT, read_commit

# Names of files that a writer leaves in a run's folder.
_WRITTEN = re.compile(rf"(.*/)?({re.escape(COMMIT)}|c(/\d+)*|[^/]*\.tmp)")


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
            while not self._acquire():
                self._lock.release()
        except filelock.Timeout:
            raise StoreError(
                f"{path} has a writer already: another process or monitor is recording into it."
            ) from None
        except OSError as error:
            raise StoreError(f"{path} cannot be written: {error}. Pass another path.") from None

    def _acquire(self) -> bool:
        """Lock the file; False if another process has removed or replaced it meanwhile."""
        self._file.touch()
        before = _inode(self._file)
        self._lock.acquire(timeout=0)
        return before is not None and before == _inode(self._file)

    def release(self) -> None:
        """Let others write; the file is removed first, while nobody else can lock it."""
        if self._lock.is_locked:
            with suppress(OSError):  # Windows keeps a file that is open
                self._file.unlink()
        self._lock.release()


def _inode(file: Path) -> int | None:
    try:
        return file.stat().st_ino
    except FileNotFoundError:
        return None


def remove_run(path: Path) -> None:
    """Remove the run at a path, if there is one, even if it is damaged; its name is free at once.

    A run that has a writer, and anything else at the path, raises StoreError.
    """
    whole = path.resolve()
    aside = whole.with_name(f".{whole.name}.removed")
    if _is_run(whole, path):
        lock = Lock(whole)
        try:
            shutil.rmtree(aside, ignore_errors=True)  # left by a removal that was killed
            whole.rename(aside)
        finally:
            lock.release()
    shutil.rmtree(aside, ignore_errors=True)


def _is_run(folder: Path, path: Path) -> bool:
    if _was_run(folder):
        return True
    if not (folder / COMMIT).exists():
        return False
    read_commit(Folder(folder), path)  # raises the error
    return True


def _was_run(folder: Path) -> bool:
    """Whether all files in a folder have names that a writer gives; their content may be damaged."""
    try:
        commit = Folder(folder).read(COMMIT, MOST_COMMIT) or b""
    except DamageError:
        commit = b""
    is_ours = VERSION_KEY.encode() in commit or (folder / SUMS_KEY).is_dir()
    return is_ours and all(
        _WRITTEN.fullmatch(Path(at, name).relative_to(folder).as_posix())
        for at, _, names in os.walk(folder)
        for name in names
    )
