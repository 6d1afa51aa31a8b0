"""`Alarm`: one fault during training, and how a run stores it."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from rich.markup import escape

from throughtime._errors import StoreError

ATTRIBUTE, OFF = "alarms", "alarms_off"  # attributes of a run


@dataclass(frozen=True)
class Alarm:
    """One fault during training.

    Attributes
    ----------
    name : {"nonfinite", "explosion", "vanishing", "saturation", "dead_gradient"}
    layer : str
        Empty for the norm of all gradients together, which the training loop reports.
    step : int
        First training step with this fault.
    evidence : str
        The numbers that show it.
    """

    name: str
    layer: str
    step: int
    evidence: str

    def __str__(self) -> str:
        return f"step {self.step}: {self._what}: {self.evidence}"

    def __rich__(self) -> str:
        # `on_alarm=rich.print` prints an alarm in colour.
        step, what, evidence = map(escape, (str(self.step), self._what, self.evidence))
        return f"[dim]step {step}[/dim] [bold red]{what}[/bold red] {evidence}"

    @property
    def _what(self) -> str:
        return f"{self.name.replace('_', ' ')}{f' in {self.layer}' if self.layer else ''}"


def as_attribute(alarms: Iterable[Alarm]) -> str:
    """Encode alarms as one text for the attributes of a run.

    >>> alarms_of_run({"alarms": as_attribute([Alarm("explosion", "rnn", 3, "12 times")])})[0].step
    3
    """
    return json.dumps([asdict(alarm) for alarm in alarms])


def alarms_of_run(attributes: Mapping[Any, Any]) -> list[Alarm]:
    """Decode the alarms in the attributes of a run; damaged ones raise StoreError."""
    try:
        alarms = [Alarm(**each) for each in _read_list(attributes, ATTRIBUTE)]
    except TypeError as error:
        raise StoreError(f"The alarms of the run are damaged: {error}.") from None
    if not all(type(alarm.step) is int and isinstance(alarm.name, str) for alarm in alarms):
        raise StoreError("The alarms of the run are damaged: a name is not a text, or a step not a number.")
    return alarms


def alarms_off(attributes: Mapping[Any, Any]) -> list[str]:
    """List the alarms that were turned off in a run."""
    return [str(name) for name in _read_list(attributes, OFF)]


def _read_list(attributes: Mapping[Any, Any], name: str) -> list[Any]:
    try:
        kept = json.loads(str(attributes.get(name, "[]")))
    except (ValueError, RecursionError):
        kept = None
    if not isinstance(kept, list):
        raise StoreError(f"The run is damaged: its {name.replace('_', ' ')} are not a list.")
    return kept
