"""A callback for `fit`, of Keras 3 and of tf_keras: both call it alike, the library is an argument."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from throughtime._errors import MonitorError


class NotACallback:
    """A monitor in `callbacks=` itself: the first things that `fit` and Trainers ask it for."""

    async_safe = True  # else Keras asks for its hooks before
    state_key, on_exception = "Monitor", None  # else Lightning replaces the error of `setup`

    def set_model(self, *_: Any) -> None:
        """Name the callback to pass.

        Raises
        ------
        MonitorError
            Always.
        """
        raise MonitorError(
            "A Monitor is not a Keras callback itself. Pass the one that it makes: "
            "callbacks=[monitor.keras()], or [monitor.tf_keras()] for a model of tf_keras."
        )

    set_params = set_model

    def on_init_end(self, *_: Any, **__: Any) -> None:
        """Name the callback to pass.

        Raises
        ------
        MonitorError
            Always.
        """
        raise MonitorError(
            "A Monitor is not a callback of transformers itself. Pass the one that it makes: "
            "callbacks=[monitor.transformers()]."
        )

    def setup(self, *_: Any, **__: Any) -> None:
        """Name the callback to pass.

        Raises
        ------
        MonitorError
            Always.
        """
        raise MonitorError(
            "A Monitor is not a Lightning callback itself. Pass the one that it makes: "
            "callbacks=[monitor.lightning()]."
        )


def keras_callback(monitor: Any, library: str) -> Any:
    """Make the callback.

    Parameters
    ----------
    monitor : Monitor
    library : {"keras", "tf_keras"}
    """
    base: Any = import_module(library).callbacks.Callback

    class MonitorCallback(base):  # type: ignore[misc]
        """Tells a monitor of each training step."""

        def on_train_begin(self, logs: Any = None) -> None:
            monitor.begin(self.model)

        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            self._seen = -1

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            # With steps_per_execution several training steps end at once; `batch` is the last of them,
            # and beyond the epoch where they do not divide it.
            steps = self.params.get("steps")
            last = batch if steps is None else min(batch, steps - 1)
            monitor.step(last - self._seen)
            self._seen = last
            if monitor.should_stop:
                self.model.stop_training = True

        def on_train_end(self, logs: Any = None) -> None:
            monitor.end()

    return MonitorCallback()
