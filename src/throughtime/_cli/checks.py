"""Faults of a run: damage, failed certificates, numbers that are not finite."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import throughtime as tt
from throughtime._store import damage, without_checksums
from throughtime.diagnostics.checks import why_refused


def complaints(run: Path) -> Iterator[str]:
    """Yield the faults: damaged files by variable and step, failed certificates, the first NaN."""
    is_damaged = False
    for found in damage(run):
        is_damaged = True
        yield found
    if is_damaged:
        return
    tree = tt.open_run(run)
    for leaf in tree.leaves:
        if leaf.data_vars and (reason := why_refused(leaf.to_dataset())):
            yield reason
    if (broken := tt.diagnostics.first_nonfinite(tree)) is not None:
        yield str(broken)


def remarks(run: Path) -> Iterator[str]:
    """Yield remarks on parts that a check cannot read."""
    if without := without_checksums(run):
        yield (
            f"{len(without)} variables have no checksums: an earlier version wrote them. Damage that leaves "
            "their files readable is not seen."
        )
