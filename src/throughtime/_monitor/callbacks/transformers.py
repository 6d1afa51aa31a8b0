"""A callback for the Trainer of Hugging Face's transformers, whose models are torch modules."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from throughtime._errors import MissingDependencyError


def transformers_callback(monitor: Any) -> Any:
    """Create the callback. All processes of DDP record together; of other ones only the first records.

    Parameters
    ----------
    monitor : Monitor

    Raises
    ------
    MissingDependencyError
        transformers is not installed.
    """
    try:
        base: Any = import_module("transformers").TrainerCallback
    except ImportError as error:
        raise MissingDependencyError(
            f"monitor.transformers() needs transformers: pip install 'throughtime[transformers]'. ({error})"
        ) from None

    class MonitorCallback(base):  # type: ignore[misc]
        """Reports each step of the optimizer to a monitor."""

        def on_train_begin(
            self, args: Any, state: Any, control: Any, model: Any = None, optimizer: Any = None, **_: Any
        ) -> None:
            self._seen = state.global_step  # more than 0 after a checkpoint
            is_parallel = _is_parallel(args)
            self._records = state.is_world_process_zero or is_parallel
            if self._records:
                monitor.begin(model, optimizer=optimizer, of_all=is_parallel)

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            made, self._seen = state.global_step - self._seen, state.global_step
            if self._records:
                monitor.step(made)
            control.should_training_stop = control.should_training_stop or monitor.should_stop

        def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if self._records:
                monitor.end()

    return MonitorCallback()


def _is_parallel(arguments: Any) -> bool:
    """Whether each process has a replica of the model, which arrives here without its parallel module."""
    mode = getattr(getattr(arguments, "parallel_mode", None), "value", "")
    return mode == "distributed" and not (arguments.fsdp or arguments.deepspeed)
