"""`watch`: a monitor that asks for nothing. The first training batch is its batch, a dated folder its run."""

import atexit
import gc
import inspect
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import Any

from throughtime import loggers
from throughtime._errors import MonitorError
from throughtime._inputs.batch import take
from throughtime._inputs.structures import mapped
from throughtime.adapters import choose

from .guards import LoggerGroup
from .monitor import Monitor

FOLDER = "throughtime_runs"
_REMEDY = "Pass them yourself: tt.Monitor(path, batch=(x, y), loss=loss) and monitor.watch(model)."


def watch(model: Any, **options: Any) -> Monitor:
    """Record the training of a model from its next step on, without a batch, a path or a change of the loop.

    The first training batch is kept and captured at each recorded step. The run is a dated folder in
    `throughtime_runs`, such as 2026-11-28_20-15-00.zarr. An active run of Weights & Biases or Trackio and an
    open `SummaryWriter` of TensorBoard receive the numbers. `monitor.end()`, the end of `fit` or the end of
    the process records the last step.

    Parameters
    ----------
    model : torch.nn.Module or Keras model
        PyTorch: the loss is what the first step computes from the model's output up to `backward()`. A hook
        on the model sees that step and is then removed; a hook on optimizers counts the steps of the first
        one that has weights of the model. If batch or loss cannot be seen, a warning gives the reason.
        Keras: from now on `fit` of this model adds the monitor's callback; `del model.fit` undoes this. The
        batch is the first one of the data that `fit` receives.
    **options
        Options of `Monitor`, except `batch` and `mode`.

    Returns
    -------
    Monitor

    Raises
    ------
    MonitorError
        The model is a JAX program, whose training creates a new model at each step, or an option is wrong.
    UnsupportedModelError
        The object is not a model.

    Examples
    --------
    >>> import os, tempfile, torch
    >>> import throughtime as tt
    >>> os.chdir(tempfile.mkdtemp())
    >>> _ = torch.manual_seed(0)
    >>> model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.RNN(3, 1, batch_first=True))
    >>> optimizer = torch.optim.SGD(model.parameters(), 0.1)
    >>> monitor = tt.watch(model, every=2, on_alarm=print)
    >>> for _ in range(4):
    ...     optimizer.zero_grad()
    ...     model(torch.ones(4, 5, 2))[0][:, -1].square().mean().backward()
    ...     optimizer.step()
    >>> tt.open_run(monitor.path)["1"]["step"].values.tolist()
    [0, 2, 4]
    """
    adapter = choose(model)
    start = _STARTS.get(getattr(adapter, "__name__", "").rpartition(".")[2])
    if start is None:
        raise MonitorError(
            "tt.watch cannot follow a JAX program: each training step returns a new model, which no hook can "
            "see. Create a monitor, tt.Monitor(path, batch=(x, y), loss=loss), and in your loop, within "
            "monitor.watch(model), call monitor.step(model) after each step."
        )
    if unknown := options.keys() - inspect.signature(Monitor).parameters.keys():
        raise MonitorError(f"Monitor has no option {', '.join(sorted(unknown))}.")
    stem = f"{datetime.now():%Y-%m-%d_%H-%M-%S}"
    paths = (Path(FOLDER, f"{stem}{f'-{number}' * (number > 1)}.zarr") for number in count(1))
    monitor = Monitor(next(path for path in paths if not path.exists()), batch=(None, None), **options)
    start(monitor, model, adapter, "loggers" not in options)
    atexit.register(monitor.end)
    return monitor


def _keep(monitor: Monitor, batch: Any, find_loggers: bool, callbacks: Any = ()) -> None:
    """Take a batch as the monitor's, and the loggers that are active now."""
    kept = replace(monitor._settings, batch=batch)
    if find_loggers:
        kept = replace(kept, loggers=LoggerGroup(list(_active_loggers(callbacks)), monitor._warnings.leave))
    monitor._settings = kept


def _active_loggers(callbacks: Any) -> Iterator[Any]:
    """Create a logger for each tracker that has an active run."""
    if getattr(sys.modules.get("wandb"), "run", None) is not None:
        yield loggers.WandB()
    trackio = sys.modules.get("trackio")
    if trackio is not None and trackio.context_vars.current_run.get() is not None:
        yield loggers.Trackio()
    writer = getattr(sys.modules.get("torch.utils.tensorboard"), "SummaryWriter", None)
    found = [*callbacks, *(each for each in gc.get_objects() if writer and type(each) is writer)]
    folders = (each.log_dir for each in found if type(each).__name__ in ("TensorBoard", "SummaryWriter"))
    yield from map(loggers.TensorBoard, dict.fromkeys(map(str, folders)))


def _start_torch(monitor: Monitor, model: Any, adapter: Any, find_loggers: bool) -> None:
    warn = monitor._warnings

    def began(x: Any, labels: Any, loss: Any) -> None:
        _keep(monitor, (x, labels, None), find_loggers)
        warn.guard(lambda: monitor.begin(model, loss=monitor._loss or loss))
        warn.deliver()

    def failed(reason: str) -> None:
        warn.leave(f"{reason}: watch cannot see batch and loss. {_REMEDY}")
        warn.deliver()

    def stepped(optimizer: Any) -> bool:
        if monitor._recorder is not None:
            monitor._recorder.optimizer = optimizer
            monitor.step()
        return monitor._recorder is not None

    adapter.FirstStep(model, began=began, failed=failed, stepped=stepped)


def _start_keras(monitor: Monitor, model: Any, adapter: Any, find_loggers: bool) -> None:
    fit: Callable[..., Any] = model.fit
    is_tf_keras = any(cls.__module__.startswith("tf_keras") for cls in type(model).__mro__)
    callback = monitor.tf_keras() if is_tf_keras else monitor.keras()

    def fit_and_record(*arguments: Any, **keywords: Any) -> Any:
        given = inspect.signature(fit).bind(*arguments, **keywords).arguments
        callbacks = given.get("callbacks") or []
        callbacks = list(callbacks) if isinstance(callbacks, (list, tuple)) else [callbacks]
        if monitor._settings.batch[0] is None:
            _keep(monitor, _first(given), find_loggers, callbacks)
        return fit(**{**given, "callbacks": [*callbacks, callback]})

    object.__setattr__(model, "fit", fit_and_record)  # unseen by what Keras tracks


def _first(given: Any) -> tuple[Any, ...]:
    """Take the first batch of the data that `fit` receives; of arrays as many rows as a batch has."""
    batch = take(given.get("x"), given.get("y"), given.get("sample_weight"))
    rows = (given.get("batch_size") or 32) if batch.origin == "the arrays given" else None
    parts = (batch.x, batch.y, batch.sample_weight)
    return tuple(mapped(lambda leaf: None if leaf is None else leaf[:rows], part) for part in parts)


_STARTS: dict[str, Callable[..., None]] = {
    "torch": _start_torch,
    **dict.fromkeys(("keras2", "keras3"), _start_keras),
}
