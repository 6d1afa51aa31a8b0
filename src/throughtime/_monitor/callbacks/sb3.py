"""A callback for stable-baselines3 and sb3-contrib, whose policies are torch modules."""

from __future__ import annotations

from copy import copy
from importlib import import_module
from typing import Any

from throughtime._errors import MissingDependencyError


def sb3_callback(monitor: Any) -> Any:
    """Make the callback: one step of the monitor is one rollout and the training on it.

    Parameters
    ----------
    monitor : Monitor

    Raises
    ------
    MissingDependencyError
        stable-baselines3 is not installed.
    """
    try:
        base: Any = import_module("stable_baselines3.common.callbacks").BaseCallback
    except ImportError as error:
        raise MissingDependencyError(
            f"monitor.sb3() needs stable-baselines3: pip install stable-baselines3. ({error})"
        ) from None

    class MonitorCallback(base):  # type: ignore[misc]
        """Reports each training on a rollout to a monitor of the policy."""

        def _on_training_start(self) -> None:
            self._rollouts = 0
            policy = self.model.policy
            rollouts = copy(policy)  # the same layers and weights; called on whole rollouts, as training does
            rollouts.forward = getattr(policy, "evaluate_actions", policy.forward)
            monitor.begin(rollouts, optimizer=getattr(policy, "optimizer", None))

        def _on_rollout_start(self) -> None:
            self._trained()
            self._rollouts += 1

        def _on_step(self) -> bool:
            return not monitor.should_stop

        def _on_training_end(self) -> None:
            self._trained()
            monitor.end()

        def _trained(self) -> None:
            """Count a step if a rollout came before: the policy was trained on it."""
            monitor.step(min(self._rollouts, 1))

    return MonitorCallback()
