"""Removes a run that is replaced by another."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from throughtime._store.files import DamageError, Folder
from throughtime._store.lock import Lock
from throughtime._store.schema import COMMIT, STEP, SUMS, VERSION_KEY
from throughtime._store.validate import MOST_COMMIT, validated

# Names of files that a writer leaves in a run's folder.
_WRITTEN = re.compile(rf"(.*/)?({re.escape(COMMIT)}|c(/\d+)*|[^/]*\.tmp)")


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
    validated(Folder(folder), path)  # raises the error
    return True


def _was_run(folder: Path) -> bool:
    """Whether all files in a folder have names that a writer gives; their content may be damaged."""
    try:
        commit = Folder(folder).read(COMMIT, MOST_COMMIT) or b""
    except DamageError:
        commit = b""
    is_ours = VERSION_KEY.encode() in commit or (folder / STEP / f"{SUMS}-0").is_dir()
    return is_ours and all(
        _WRITTEN.fullmatch(Path(at, name).relative_to(folder).as_posix())
        for at, _, names in os.walk(folder)
        for name in names
    )
