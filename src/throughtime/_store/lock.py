"""One writer for a run: the lock lies beside the folder, which a thinning exchanges for another."""

from __future__ import annotations

from pathlib import Path

import filelock

from throughtime._errors import StoreError


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
            whole = path.resolve()
            self._lock = filelock.FileLock(whole.with_name(f".{whole.name}.lock"))
            self._lock.acquire(timeout=0)
        except filelock.Timeout:
            raise StoreError(
                f"{path} has a writer already: another process or monitor is recording it."
            ) from None
        except OSError as error:
            raise StoreError(f"{path} cannot be written: {error}. Give another path.") from None

    def release(self) -> None:
        self._lock.release()
