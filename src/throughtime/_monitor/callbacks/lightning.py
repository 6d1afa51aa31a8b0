"""A callback for Lightning's Trainer. The module is a torch module; the monitor has the loss."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

from throughtime._errors import MissingDependencyError

_PARALLEL = "DDPStrategy"
_WITH_WHOLE_GRADIENTS = ("SingleDeviceStrategy", _PARALLEL)  # others shard the gradients


def lightning_callback(monitor: Any, guarded: Callable[..., Any]) -> Any:
    """Create the callback. All processes of DDP record together; of other ones only the first records.

    Parameters
    ----------
    monitor : Monitor
    guarded : callable (function, ...)
        Calls a function and turns its error into a warning.

    Raises
    ------
    MissingDependencyError
        Neither lightning nor pytorch_lightning is installed.
    """
    library = _library()

    class MonitorCallback(library.Callback):  # type: ignore[misc, name-defined]
        """Calls `step` of a monitor after each step of the optimizer."""

        def on_train_start(self, trainer: Any, pl_module: Any) -> None:
            self._seen = trainer.global_step
            is_parallel = type(trainer.strategy).__name__ == _PARALLEL
            self._records = trainer.is_global_zero or is_parallel
            if self._records:
                model = trainer.strategy.model if is_parallel else pl_module
                monitor.begin(model, optimizer=next(iter(trainer.optimizers), None))

        def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
            # Lightning clips after this hook, and has unscaled the gradients unless the optimizer does that.
            if self._records and _knows_gradients(trainer, pl_module):
                is_default = _is_default_clipping(pl_module, library.LightningModule)
                guarded(_report_norm, monitor, trainer, optimizer, is_default)

        def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any, **__: Any) -> None:
            made, self._seen = trainer.global_step - self._seen, trainer.global_step
            if self._records and made:  # with gradient accumulation, several batches make one step
                monitor.step(made)
            trainer.should_stop = trainer.should_stop or monitor.should_stop

        def on_train_end(self, trainer: Any, pl_module: Any) -> None:
            if self._records:
                monitor.end()

    return MonitorCallback()


def _knows_gradients(trainer: Any, module: Any) -> bool:
    """Whether this process sees all gradients before they are clipped."""
    is_whole = type(trainer.strategy).__name__ in _WITH_WHOLE_GRADIENTS
    return is_whole and module.automatic_optimization  # with manual optimization the module may clip earlier


def _is_default_clipping(module: Any, base: Any) -> bool:
    return type(module).configure_gradient_clipping is base.configure_gradient_clipping


def _report_norm(monitor: Any, trainer: Any, optimizer: Any, is_default_clipping: bool) -> None:
    gradients = [
        weight.grad
        for group in optimizer.param_groups
        for weight in group["params"]
        if weight.grad is not None
    ]
    if not gradients:
        return
    norm_of = import_module("torch").nn.utils.get_total_norm
    scaler, scales = getattr(trainer.precision_plugin, "scaler", None), {}
    if scaler is not None:
        is_scaled = getattr(optimizer, "_step_supports_amp_scaling", False)
        scales["loss_scale"] = scaler.get_scale() if is_scaled else 1.0
    limit = trainer.gradient_clip_val if is_default_clipping else None
    if limit and trainer.gradient_clip_algorithm == "value":
        scales["clipped_norm"] = norm_of([gradient.clamp(-limit, limit) for gradient in gradients])
    elif limit:
        scales["clip_norm"] = limit
    monitor.report_gradient_norm(norm_of(gradients), **scales)


def _library() -> Any:
    for name in ("lightning.pytorch", "pytorch_lightning"):
        try:
            return import_module(name)
        except ImportError:
            continue
    raise MissingDependencyError("monitor.lightning() needs lightning: pip install 'throughtime[lightning]'.")
