"""A callback for `fit` in Keras 3 and tf_keras. Both call the same hooks; the library is an argument."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from throughtime._errors import MonitorError


class NotACallback:
    """The first hooks that `fit` and Trainers call if a monitor itself is in `callbacks=`."""

    async_safe = True  # otherwise Keras looks for other hooks first
    state_key, on_exception = "Monitor", None  # otherwise Lightning replaces the error of `setup`

    def set_model(self, *_: Any) -> None:
        """Raise an error that names the callback to pass.

        Raises
        ------
        MonitorError
            Always.
        """
        raise MonitorError(
            "A Monitor is not a Keras callback. Pass the callback that it creates: "
            "callbacks=[monitor.keras()], or [monitor.tf_keras()] for a tf_keras model."
        )

    set_params = set_model

    def on_init_end(self, *_: Any, **__: Any) -> None:
        """Raise an error that names the callback to pass.

        Raises
        ------
        MonitorError
            Always.
        """
        raise MonitorError(
            "A Monitor is not a callback of transformers. Pass the callback that it creates: "
            "callbacks=[monitor.transformers()]."
        )

    def setup(self, *_: Any, **__: Any) -> None:
        """Raise an error that names the callback to pass.

        Raises
        ------
        MonitorError
            Always.
        """
        raise MonitorError(
            "A Monitor is not a Lightning callback. Pass the callback that it creates: "
            "callbacks=[monitor.lightning()]."
        )


def keras_callback(monitor: Any, library: str) -> Any:
    """Create the callback.

    Parameters
    ----------
    monitor : Monitor
    library : {"keras", "tf_keras"}
    """
    base: Any = import_module(library).callbacks.Callback

    class MonitorCallback(base):  # type: ignore[misc]
        """Calls `step` of a monitor after each training step."""

        def on_train_begin(self, logs: Any = None) -> None:
            monitor.begin(self.model)

        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            self._seen = -1

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            # With steps_per_execution several training steps end at once. `batch` is the last of them, and
            # lies beyond the epoch if their number does not divide its length.
            steps = self.params.get("steps")
            last = batch if steps is None else min(batch, steps - 1)
            monitor.step(last - self._seen)
            self._seen = last
            if monitor.should_stop:
                self.model.stop_training = True

        def on_train_end(self, logs: Any = None) -> None:
            monitor.end()

    return MonitorCallback()
