"""Follows a run on disk: reports when there is something new, and whether it continues what was there.

Works on any run: one that does not exist yet is waited for, one that is thinned or begun anew is a new
generation.
"""

from pathlib import Path

import xarray as xr

from throughtime._store.lock import lock_file
from throughtime._store.open_run import open_files, tree_of
from throughtime._store.schema import COMMIT
from throughtime._tree import recorded_steps

_Identity = tuple[tuple[int, int], tuple[int, int, int]]


class Follower:
    """Reads one run again and again.

    `tree` is the run as it was committed last, None before there is one; `steps` its training steps.
    `generation` grows whenever earlier steps are not the beginning of today's; `committed_at` is in seconds
    since the epoch.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.tree: xr.DataTree | None = None
        self.steps: list[int] = []
        self.generation = 0
        self._seen: _Identity | None = None

    @property
    def committed_at(self) -> float:
        """Time of the last commit, in seconds since the epoch."""
        return 0.0 if self._seen is None else self._seen[1][1] / 1e9

    @property
    def is_ended(self) -> bool:
        """Whether the writer closed the run: of one that records, or was killed, the lock lies there."""
        return self._seen is not None and not lock_file(self.path).exists()

    def refresh(self) -> bool:
        """Look whether something was committed, and open the run anew if so.

        Returns False also where the run is gone for a moment, as it is when it is thinned.
        """
        found = _identity(self.path)
        if found is None or found == self._seen:
            return False
        tree = tree_of(*open_files(self.path), self.path, in_chunks=False)
        steps = recorded_steps(tree)
        if not self.is_same_folder(found) or steps[: len(self.steps)] != self.steps:
            self.generation += 1
        self.tree, self.steps, self._seen = tree, steps, found
        return True

    def is_same_folder(self, found: _Identity | None = None) -> bool:
        """Whether the run still lies where it was opened: what was read meanwhile is of one run then."""
        found = found or _identity(self.path)
        return found is not None and self._seen is not None and found[0] == self._seen[0]

    def forget(self) -> None:
        """Read everything again at the next look."""
        self._seen, self.steps = None, []


def _identity(path: Path) -> _Identity | None:
    """Identify a commit of a run; None where there is none."""
    try:
        folder, commit = path.stat(), (path / COMMIT).stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return (folder.st_dev, folder.st_ino), (commit.st_ino, commit.st_mtime_ns, commit.st_size)
