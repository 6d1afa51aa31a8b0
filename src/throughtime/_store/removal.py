"""Removes a run that is replaced by another."""

from __future__ import annotations

import shutil
from pathlib import Path

from throughtime._store.files import Folder
from throughtime._store.lock import Lock
from throughtime._store.schema import COMMIT
from throughtime._store.validate import validated


def remove_run(path: Path) -> None:
    """Remove the run at a path, if there is one; its name is free at once.

    Raises
    ------
    StoreError
        There is something else, or a writer.
    """
    whole = path.resolve()
    aside = whole.with_name(f".{whole.name}.removed")
    if (whole / COMMIT).exists():
        validated(Folder(whole), path)  # refuses what is no run
        lock = Lock(whole)
        try:
            shutil.rmtree(aside, ignore_errors=True)  # of a removal that was killed
            whole.rename(aside)
        finally:
            lock.release()
    shutil.rmtree(aside, ignore_errors=True)
