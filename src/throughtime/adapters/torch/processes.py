"""The processes that train one module together, and what they exchange beside the training."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from throughtime._errors import MonitorError

PATIENCE = timedelta(minutes=2)
_REMEDY = (
    "Every process has to watch the model and to call step(), record() and end() alike. To record the batch "
    "of one process alone, watch the module within DistributedDataParallel, model.module, there."
)


class Processes:
    """A group of these global ranks on the CPU, beside training's: `rank` is the place of this process.

    Raises
    ------
    MonitorError
        Some of the processes do not watch the module.
    """

    def __init__(self, ranks: list[int]) -> None:
        self.rank, self._ranks, self._lost = ranks.index(dist.get_rank()), ranks, ""
        self._group = self._guarded(
            lambda: dist.new_group(ranks, timeout=PATIENCE, backend="gloo", use_local_synchronization=True)
        )

    def gather(self, value: Any) -> list[Any]:
        """Return the values of all processes, in their order."""
        found = [None] * len(self._ranks)
        self._guarded(lambda: dist.all_gather_object(found, value, group=self._group))
        return found

    def add(self, values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return the sum over all processes."""
        total = torch.from_numpy(values.copy())
        self._guarded(lambda: dist.all_reduce(total, group=self._group))
        return np.asarray(total.numpy())

    def of_first(self, value: Any) -> Any:
        """Return the value of the first process."""
        found = [value]
        self._guarded(lambda: dist.broadcast_object_list(found, src=self._ranks[0], group=self._group))
        return found[0]

    def leave(self) -> None:
        """Exchange nothing from now on: this process stops, perhaps alone."""
        self._lost = "this process has stopped"

    def _guarded(self, exchange: Any) -> Any:
        if self._lost:
            raise MonitorError(f"The processes exchange nothing any more: {self._lost}. {_REMEDY}")
        try:
            return exchange()
        except (RuntimeError, ValueError, AssertionError) as error:
            # A timeout, or a process or a group that is gone.
            self._lost = f"{type(error).__name__}: {error}"
            raise MonitorError(
                f"The other processes did not answer within {PATIENCE.seconds} s, or are gone. {_REMEDY} "
                f"({error})"
            ) from error


def processes_of(model: nn.Module, of_all: bool) -> Processes | None:
    """Return the processes that train a module with DistributedDataParallel; None if there is one.

    With `of_all` the module is within one that cannot be reached, of all processes.
    """
    parallel = next((each for each in model.modules() if isinstance(each, DistributedDataParallel)), None)
    if parallel is None and not (of_all and dist.is_initialized()):
        return None
    ranks = dist.get_process_group_ranks(None if parallel is None else parallel.process_group)
    return Processes(ranks) if len(ranks) > 1 else None
