"""What the package says of a network: its verdict, and the alarms of a monitor's record."""

from __future__ import annotations

import inspect
import pathlib
import tempfile
import warnings
from dataclasses import dataclass

import throughtime as tt

from .training import Trained, generator, loss_of

VERDICT_OF = {"uses": "uses", "weak_signal": "uses", "unused": "unused", "no_evidence": "unused"}


@dataclass(frozen=True)
class Said:
    """The answers on one network.

    Attributes
    ----------
    verdict : str
        A verdict, or "refused" with an error.
    use : "uses", "unused" or "undecided"
        By the verdict.
    answer : str
        On use itself, where several layers share it: of the first.
    faded : bool
        Whether some layer's reach is "no".
    alarms : tuple of str
    text : str
    """

    verdict: str
    use: str
    answer: str
    faded: bool
    alarms: tuple[str, ...]
    text: str


def said(network: Trained, samples: int) -> Said:
    x, y = network.case.task.draw(samples, generator(3000 + network.seed))
    settings = {} if network.case.framework == "keras" else {"loss": loss_of(network.case)}
    if network.case.framework == "keras":
        x, y = x.numpy(), y.numpy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        alarms = _alarms(network, x, y, settings)
        try:
            found = tt.diagnose(
                network.model,
                x,
                y,
                dependency_length=network.case.lag,
                seed=network.seed,
                **settings,
                **_optimizer(network, tt.diagnose),
            )
        except tt.ThroughTimeError as error:
            return Said("refused", "undecided", "", False, alarms, str(error))
    verdict = str(found.verdict)
    use = VERDICT_OF.get(verdict, "undecided")
    answer = next((each.use.answer for each in found.layers.values()), "")
    faded = any(each.reach.answer == "no" for each in found.layers.values())
    return Said(verdict, use, answer, faded, alarms, found.text)


def _optimizer(network: Trained, function) -> dict:
    """Pass the optimizer where a function takes it; Keras' models have theirs."""
    takes = "optimizer" in inspect.signature(function).parameters
    return {"optimizer": network.optimizer} if takes and network.case.framework == "torch" else {}


def _alarms(network: Trained, x, y, settings) -> tuple[str, ...]:
    with tempfile.TemporaryDirectory() as folder:
        monitor = tt.Monitor(
            pathlib.Path(folder) / "run.zarr",
            batch=(x, y),
            every=1,
            vanishing_lag=network.case.lag,
            on_alarm=lambda _: None,
            **settings,
        )
        if network.case.framework == "keras":
            monitor.keras().set_model(network.model)
            callback = monitor.keras()
            callback.set_model(network.model)
            callback.on_train_begin()
            callback.on_train_end()
        else:
            with monitor.watch(network.model, **_optimizer(network, monitor.watch)):
                pass
        return tuple(sorted({alarm.name for alarm in monitor.alarms}))
