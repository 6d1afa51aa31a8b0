"""A callback for Lightning's Trainer: the module is a torch module, the loss is the monitor's."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from throughtime._errors import MissingDependencyError


def lightning_callback(monitor: Any) -> Any:
    """Make the callback; of several processes only the first records.

    Parameters
    ----------
    monitor : Monitor

    Raises
    ------
    MissingDependencyError
        Neither lightning nor pytorch_lightning is installed.
    """

    class MonitorCallback(_base()):  # type: ignore[misc]
        """Tells a monitor of each step of the optimizer."""

        def on_train_start(self, trainer: Any, pl_module: Any) -> None:
            self._seen = trainer.global_step
            if trainer.is_global_zero:
                monitor.begin(pl_module)

        def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any, **__: Any) -> None:
            made, self._seen = trainer.global_step - self._seen, trainer.global_step
            if trainer.is_global_zero and made:  # several batches make one step where gradients accumulate
                monitor.step(made)
            trainer.should_stop = trainer.should_stop or monitor.should_stop

        def on_train_end(self, trainer: Any, pl_module: Any) -> None:
            if trainer.is_global_zero:
                monitor.end()

    return MonitorCallback()


def _base() -> Any:
    for name in ("lightning.pytorch", "pytorch_lightning"):
        try:
            return import_module(name).Callback
        except ImportError:
            continue
    raise MissingDependencyError("monitor.lightning() needs lightning: pip install 'throughtime[lightning]'.")
