"""The batch of a record as one process captures it, or as several capture their parts of it.

Under DistributedDataParallel each process captures its part of the batch. The parts are added up as those of
a sweep; the first process reduces, stores and judges the whole, and the others learn the outcome.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import reduce
from operator import add
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

import numpy as np

from throughtime._capture.label import Captured
from throughtime._errors import MonitorError
from throughtime.adapters import choose
from throughtime.diagnostics.alarm import Alarm

from .alarms import SeenLayer, broken_in, is_reached, seen_layers
from .arrays import Reduced
from .levels import Weights, change, stored, weight_names
from .part import Part, part_of
from .provenance import BATCH, fingerprint
from .whole import labelled, ratios_of, reduced

if TYPE_CHECKING:
    from throughtime.adapters.torch.training import Processes

    from .settings import Settings

Capture = Callable[[], Captured]
Outcome = TypeVar("Outcome")
_LEVELS = ("summary", "timestep")


@dataclass(frozen=True)
class SeenHere:
    """The capture of one process."""

    captured: Captured
    step: int

    @property
    def labels(self) -> Captured:
        return self.captured

    def reduced(self, level: str | frozenset[str], before: Weights | None) -> Reduced:
        return stored(self.captured, level, before)

    def broken(self) -> Alarm | None:
        return broken_in(self.captured, self.step)

    def layers(self) -> Mapping[str, SeenLayer]:
        return seen_layers(self.captured)


class _Share(NamedTuple):
    """Share of one process: its part without sums, layers with a gradient, the first number not finite."""

    part: Part
    reached: dict[str, bool]
    broken: Alarm | None


@dataclass(frozen=True)
class SeenTogether:
    """The parts that several processes have captured: this one's capture, all shares, and their sum."""

    captured: Captured
    shares: list[_Share]
    whole: Part

    @property
    def labels(self) -> Captured:
        return labelled(self.whole)

    def reduced(self, level: str | frozenset[str], before: Weights | None) -> Reduced:
        found = reduced(self.whole, str(level))
        for path, leaf in self.captured.leaves.items():
            for name in weight_names(leaf):
                old = None if before is None else before[path][name]
                found[path][f"{name}_change"] = change(leaf.arrays[name], old)
        return found

    def broken(self) -> Alarm | None:
        return next((each.broken for each in self.shares if each.broken is not None), None)

    def layers(self) -> Mapping[str, SeenLayer]:
        return {
            path: SeenLayer(
                leaf.layout, any(each.reached[path] for each in self.shares), ratios_of(self.whole, path)
            )
            for path, leaf in self.labels.leaves.items()
        }


Seen = SeenHere | SeenTogether


class Alone:
    """One process, which captures the whole batch."""

    attributes: Mapping[str, str] = {}

    def seen(self, capture: Capture, step: int) -> Seen:
        """Capture the batch."""
        return SeenHere(capture(), step)

    def agreed(self, action: Callable[[], Outcome]) -> Outcome:
        """Return what the first process makes of an action; it raises in all if it raises there."""
        return action()

    def leave(self) -> None:
        """Exchange nothing from now on."""


class Together:
    """One of several processes that train a model: each has its part of the batch, or all have the same."""

    def __init__(self, processes: Processes, settings: Settings) -> None:
        self._processes, self._level = processes, str(settings.level)
        self.attributes: dict[str, str] = {}
        prints = processes.gather(fingerprint(settings.batch))
        different = len({each["sha256"] for each in prints})
        self._is_whole = different == 1
        if settings.background or not (self._is_whole or settings.level in _LEVELS):
            raise MonitorError(
                "Several processes record one run. That needs background=False, and quantities= "
                f"{' or '.join(_LEVELS)} unless all have the same batch."
            )
        if self._is_whole:
            return
        if different < len(prints):
            raise MonitorError(
                "Some processes have the same batch, which would count twice. Give all of them the same, or "
                "each its part: rows = slice(rank, None, world_size), batch=(x[rows], y[rows])."
            )
        if len({len(each["arrays"]) for each in prints}) > 1:
            raise MonitorError("The batch of a process lacks arrays that another one has, such as labels.")
        joined = hashlib.sha256("".join(each["sha256"] for each in prints).encode())
        arrays = [array for each in prints for array in each["arrays"]]
        self.attributes[BATCH] = json.dumps({"arrays": arrays, "sha256": joined.hexdigest()})

    def seen(self, capture: Capture, step: int) -> Seen:
        """Capture this process' part of the batch and add up all parts; the first captures a whole batch."""
        if self._is_whole:
            captures: list[Captured] = []
            self.agreed(lambda: captures.append(capture()))
            return SeenHere(captures[0] if captures else Captured({}, {}), step)
        try:
            captured = capture()
            part = part_of(captured, self._level)
            reached = {path: is_reached(leaf) for path, leaf in captured.leaves.items()}
            mine: _Share | str = _Share(replace(part, sums={}), reached, broken_in(captured, step))
        except Exception as error:  # the others wait: they have to know
            mine = f"{type(error).__name__}: {error}"
        shares = self._processes.gather(mine)
        failed = [f"Process {rank}: {each}" for rank, each in enumerate(shares) if isinstance(each, str)]
        if failed:
            raise MonitorError(" ".join(failed))
        whole = reduce(add, (each.part for each in shares))
        return SeenTogether(captured, shares, replace(whole, sums=self._sums(part)))

    def _sums(self, part: Part) -> dict[str, Any]:
        """Add up losses, weight gradients and counts, which are too large to collect from every process."""
        flat = np.concatenate([value.ravel() for value in part.sums.values()])
        ends = np.cumsum([value.size for value in part.sums.values()])
        totals = np.split(self._processes.add(flat), ends[:-1])
        return {
            key: total.reshape(value.shape)
            for (key, value), total in zip(part.sums.items(), totals, strict=True)
        }

    def agreed(self, action: Callable[[], Outcome]) -> Outcome:
        """Return what the first process makes of an action; it raises in all if it raises there."""
        outcome = raised = None
        if self._processes.rank == 0:
            try:
                outcome = action()
            except Exception as error:  # the others wait: they have to know
                raised = error
        reason = None if raised is None else f"{type(raised).__name__}: {raised}"
        found, reason = self._processes.of_first((outcome, reason))
        if raised is not None:
            raise raised
        if reason is not None:
            raise MonitorError(f"The first process failed. {reason}")
        return cast("Outcome", found)

    def leave(self) -> None:
        """Exchange nothing from now on."""
        self._processes.leave()


def together(model: Any, settings: Settings) -> Alone | Together:
    """Find the processes that train a model together with this one."""
    processes = getattr(choose(model), "processes_of", lambda *_: None)(model, settings.of_all)
    return Alone() if processes is None else Together(processes, settings)
