"""`Alarm`: one thing that went wrong while a model trained, and how a run keeps it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from rich.markup import escape

from throughtime._errors import StoreError

ATTRIBUTE, OFF = "alarms", "alarms_off"  # of a run


@dataclass(frozen=True)
class Alarm:
    """One thing that went wrong.

    Attributes
    ----------
    name : {"nonfinite", "explosion", "vanishing", "saturation", "dead_gradient"}
    layer : str
        Empty where a norm that the training loop told is meant, of all gradients together.
    step : int
        Training step at which it was seen first.
    evidence : str
        The numbers it rests on.
    """

    name: str
    layer: str
    step: int
    evidence: str

    def __str__(self) -> str:
        return f"step {self.step}: {self._what}: {self.evidence}"

    def __rich__(self) -> str:
        # `on_alarm=rich.print` tells alarms as lines that stand out.
        step, what, evidence = map(escape, (str(self.step), self._what, self.evidence))
        return f"[dim]step {step}[/dim] [bold red]{what}[/bold red] {evidence}"

    @property
    def _what(self) -> str:
        return f"{self.name.replace('_', ' ')}{f' in {self.layer}' if self.layer else ''}"


def as_attribute(alarms: Iterable[Alarm]) -> str:
    """Write alarms as one text, which a run keeps among its attributes.

    Examples
    --------
    >>> alarms_of_run({"alarms": as_attribute([Alarm("explosion", "rnn", 3, "12 times")])})[0].step
    3
    """
    return json.dumps([asdict(alarm) for alarm in alarms])


def alarms_of_run(attributes: Mapping[Any, Any]) -> list[Alarm]:
    """Read the alarms that a run keeps; none where nothing was seen.

    Raises
    ------
    StoreError
        They cannot be read: the run is damaged.
    """
    try:
        alarms = [Alarm(**each) for each in _kept(attributes, ATTRIBUTE, "[]")]
    except TypeError as error:
        raise StoreError(f"The alarms of the run are damaged: {error}.") from None
    if not all(type(alarm.step) is int and isinstance(alarm.name, str) for alarm in alarms):
        raise StoreError("The alarms of the run are damaged: a name is no text, or a step no number.")
    return alarms


def alarms_off(attributes: Mapping[Any, Any]) -> list[str]:
    """Name the alarms that a run was not watched for; of one that does not know, vanishing.

    Examples
    --------
    >>> alarms_off({"alarms_off": "[]"}), alarms_off({})
    ([], ['vanishing'])
    """
    return [str(name) for name in _kept(attributes, OFF, '["vanishing"]')]


def _kept(attributes: Mapping[Any, Any], name: str, default: str) -> list[Any]:
    try:
        kept = json.loads(str(attributes.get(name, default)))
    except (ValueError, RecursionError):
        kept = None
    if not isinstance(kept, list):
        raise StoreError(f"The run is damaged: its {name.replace('_', ' ')} are no list.")
    return kept
