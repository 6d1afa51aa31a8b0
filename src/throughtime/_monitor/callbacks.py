"""Callbacks for the frameworks' training loops: each is a thin class that calls a `Monitor`."""

from collections.abc import Callable
from copy import copy
from importlib import import_module
from typing import Any

from throughtime._errors import MonitorError
from throughtime.loggers.library import library

from .guards import WarningQueue

_PARALLEL = "DDPStrategy"  # of Lightning
_WITH_WHOLE_GRADIENTS = ("SingleDeviceStrategy", _PARALLEL)  # others shard the gradients


def _refuse(what: str, callback: str) -> Callable[..., Any]:
    """Make the first hook that a framework calls if a monitor itself is in `callbacks=`."""

    def hook(*_: Any, **__: Any) -> None:
        raise MonitorError(
            f"A Monitor is not {what}. Pass the callback that it creates: callbacks={callback}."
        )

    return hook


class Callbacks:
    """The methods of a monitor that create its callbacks."""

    _warnings: WarningQueue
    async_safe = True  # otherwise Keras looks for other hooks first
    state_key, on_exception = "Monitor", None  # otherwise Lightning replaces the error of `setup`
    set_model = set_params = _refuse(
        "a Keras callback", "[monitor.keras()], or [monitor.tf_keras()] for a tf_keras model"
    )
    on_init_end = _refuse("a callback of transformers", "[monitor.transformers()]")
    setup = _refuse("a Lightning callback", "[monitor.lightning()]")

    def keras(self) -> Any:
        """Create a `keras.callbacks.Callback` for `fit`."""
        return _keras_callback(self, "keras")

    def tf_keras(self) -> Any:
        """Create a `tf_keras.callbacks.Callback` for `fit`."""
        return _keras_callback(self, "tf_keras")

    def lightning(self) -> Any:
        """Create a `lightning.pytorch.Callback`, which also reports norms before clipping; see `step`.

        The monitor's `loss` is a function of `(output, y)`, as in `capture`. All processes of
        DistributedDataParallel record together; of other ones only the first records.

        Raises
        ------
        MissingDependencyError
            Neither lightning nor pytorch_lightning is installed.
        """
        return _lightning_callback(self, self._warnings.guard)

    def transformers(self) -> Any:
        """Create a `transformers.TrainerCallback`.

        The monitor's `loss` is a function of `(output, y)`, as in `capture`. All processes of
        DistributedDataParallel record together; of other ones only the first records.

        Raises
        ------
        MissingDependencyError
            transformers is not installed.
        """
        return _transformers_callback(self)

    def sb3(self) -> Any:
        """Create a callback for `learn` of stable-baselines3; a step is the training on one rollout.

        The model is the policy. `x` of the monitor's `batch` has the arguments of its `evaluate_actions`, and
        `loss(output, y)` gets values, log-probabilities and entropy; other policies are called as they are.

        Raises
        ------
        MissingDependencyError
            stable-baselines3 is not installed.
        """
        return _sb3_callback(self)


def _keras_callback(monitor: Any, framework: str) -> Any:
    base: Any = import_module(framework).callbacks.Callback  # both libraries call the same hooks

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


def _lightning_callback(monitor: Any, guard: Callable[..., Any]) -> Any:
    modules = "lightning.pytorch", "pytorch_lightning"
    framework = library("monitor.lightning()", "lightning", "'throughtime[lightning]'", *modules)

    class MonitorCallback(framework.Callback):  # type: ignore[misc, name-defined]
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
                clip = framework.LightningModule.configure_gradient_clipping
                is_default = type(pl_module).configure_gradient_clipping is clip
                guard(_report_norm, monitor, trainer, optimizer, is_default)

        def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any, **__: Any) -> None:
            made, self._seen = trainer.global_step - self._seen, trainer.global_step
            if self._records and made:  # with gradient accumulation, several batches make one step
                monitor.step(made)
            trainer.should_stop = trainer.should_stop or monitor.should_stop

        def on_train_end(self, trainer: Any, pl_module: Any) -> None:
            monitor.end()

        def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
            if monitor._recorder is not None:
                monitor._recorder.leave()  # other processes are somewhere else
            monitor.end()

    return MonitorCallback()


def _knows_gradients(trainer: Any, module: Any) -> bool:
    """Whether this process sees all gradients before they are clipped."""
    is_whole = type(trainer.strategy).__name__ in _WITH_WHOLE_GRADIENTS
    return is_whole and module.automatic_optimization  # with manual optimization the module may clip earlier


def _report_norm(monitor: Any, trainer: Any, optimizer: Any, is_default_clipping: bool) -> None:
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    gradients = [weight.grad for weight in weights if weight.grad is not None]
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


def _transformers_callback(monitor: Any) -> Any:
    framework = library("monitor.transformers()", "transformers", "'throughtime[transformers]'")
    base: Any = framework.TrainerCallback

    class MonitorCallback(base):  # type: ignore[misc]
        """Calls `step` of a monitor after each step of the optimizer."""

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
            monitor.end()

    return MonitorCallback()


def _is_parallel(arguments: Any) -> bool:
    """Whether each process has a replica of the model, which arrives here without its parallel module."""
    mode = getattr(getattr(arguments, "parallel_mode", None), "value", "")
    return mode == "distributed" and not (arguments.fsdp or arguments.deepspeed)


def _sb3_callback(monitor: Any) -> Any:
    name = "stable-baselines3"  # and sb3-contrib; their policies are torch modules
    base: Any = library("monitor.sb3()", name, name, "stable_baselines3.common.callbacks").BaseCallback

    class MonitorCallback(base):  # type: ignore[misc]
        """Calls `step` of a monitor of the policy after each training on a rollout."""

        def _on_training_start(self) -> None:
            self._rollouts = 0
            policy = self.model.policy
            rollouts = copy(policy)  # the same layers and weights, called on whole rollouts
            rollouts.forward = getattr(policy, "evaluate_actions", policy.forward)
            monitor.begin(rollouts, optimizer=getattr(policy, "optimizer", None))

        def _on_rollout_start(self) -> None:
            self._count_training()
            self._rollouts += 1

        def _on_step(self) -> bool:
            return not monitor.should_stop

        def _on_training_end(self) -> None:
            self._count_training()
            monitor.end()

        def _count_training(self) -> None:
            """Count a step if a rollout came before: the policy was trained on it."""
            monitor.step(min(self._rollouts, 1))

    return MonitorCallback()
