"""The page's texts about a run, as markup in which every text from the run is escaped."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup, escape

from throughtime._common.text.printable import printable
from throughtime._errors import ThroughTimeError
from throughtime._pages.live.records import Floats, Rows, View
from throughtime.diagnosis.results import steps_of
from throughtime.diagnosis.summarized import horizon_of
from throughtime.diagnostics.alarm import Alarm, alarms_of_run, alarms_off
from throughtime.picture._drawing.theme import DISTINCT
from throughtime.plots.data import norm_symbol

PATIENCE = 30.0  # seconds without a record, after which the page reports it


def waiting(path: Path) -> Markup:
    """Name the run that does not exist yet."""
    return Markup("<p>Waiting for <b>{}</b>: a monitor creates it when training begins.</p>").format(
        printable(str(path))
    )


def unreadable(path: Path, error: Exception) -> Markup:
    """Name the run, and why it cannot be shown."""
    known = str(error) if isinstance(error, ThroughTimeError) else f"{type(error).__name__}: {error}"
    return Markup("<p><b>{}</b> cannot be shown: {}</p>").format(printable(str(path)), printable(known))


def activity(age: float, *, is_ended: bool) -> str:
    """Write whether a run continues: running, no record for some time, or ended.

    >>> activity(3.0, is_ended=False), activity(90.0, is_ended=False), activity(90.0, is_ended=True)
    ('running', 'no record for 90 s', 'ended')
    """
    if is_ended:
        return "ended"
    return "running" if age < PATIENCE else f"no record for {age:.0f} s"


def key(names: Sequence[str]) -> Markup:
    """Name lines by their colours."""
    items = (
        Markup('<span style="color:{}">■</span> {}').format(DISTINCT[place % len(DISTINCT)], printable(name))
        for place, name in enumerate(names)
    )
    return Markup("<p>{}</p>").format(Markup(" ").join(items) or "This run has none.")


def state(
    path: Path, attributes: Mapping[Any, Any], committed_at: float, stride: int, doing: str = ""
) -> Markup:
    """Name the run, whether it continues, its framework and batch, and the time of its last record."""
    known = {str(name): printable(str(value)) for name, value in attributes.items()}
    shown = [Markup("<b>{}</b>").format(printable(str(path)))]
    if doing:
        shown.append(Markup('<b class="doing">{}</b>').format(doing))
    if "framework" in known:
        shown.append(escape(f"{known['framework']} {known.get('framework_version', '')}".strip()))
    if "batch" in known:
        shown.append(escape(f"batch: {known['batch']}"))
    shown.append(escape(f"last record at {time.strftime('%H:%M:%S', time.localtime(committed_at))}"))
    if stride > 1:
        shown.append(escape(f"the image shows one of every {stride} records"))
    return Markup("<p>{}</p>").format(Markup(" · ").join(shown))


def numbers(
    rows: Rows, norms: Floats, recorded: int | None, view: View, lag: int, first: tuple[int, str]
) -> Markup:
    """Tabulate the last record, or its layer alone.

    `norms` (record, time) are those of the last record and of earlier ones; `first` is step and horizon of
    the first record.
    """
    ratios = rows.ratios[-1]
    symbol = printable(norm_symbol(view.quantity))
    shown = {}
    if len(ratios):
        now = horizon_of(ratios)
        change = _change(first[1], now, first[0])
        shown[f"horizon of {view.name}: steps back with 1 % of the gradient"] = f"{now} {change}".strip()
        shown[f"reach at lag {lag}"] = _number(ratios[lag])
    if recorded is not None:
        shown["training step"], shown["recorded steps"] = f"{rows.steps[-1]:,}", f"{recorded:,}"
        shown["loss"] = _number(rows.loss[-1])
    for name, place in (("last", -1), ("first", 0)):
        shown[f"{symbol}, {name} timestep"] = _number(_end(norms, place))
    tiles = (Markup("<div><dt>{}</dt><dd>{}</dd></div>").format(*each) for each in shown.items())
    return Markup("<dl>{}</dl>").format(Markup("").join(tiles))


def _change(before: str, now: str, step: int) -> str:
    """Write in which direction a horizon has moved since a step.

    >>> _change("9", "≥ 63", 0), _change("9", "9", 0), _change("not measured", "9", 0)
    ('↑ from 9 at step 0', '= as at step 0', '')
    """
    first, last = steps_of(before), steps_of(now)
    if np.isnan([first, last]).any():
        return ""
    if before == now:
        return f"= as at step {step:,}"
    return f"{'↑' if last > first else '↓'} from {before} at step {step:,}"


def _end(norms: Any, place: int) -> float:
    """Return the last record at its first or last unmasked step: one that is a number in some record."""
    valid = norms[-1, ~np.isnan(norms).all(axis=0)]
    return float(valid[place]) if len(valid) else float("nan")


def _number(value: float) -> str:
    return f"{float(value):.3g}" if np.isfinite(value) else ("NaN" if np.isnan(value) else "∞")


def alarms(attributes: Mapping[Any, Any]) -> Markup:
    """List the alarms of the run, the latest first."""
    seen = alarms_of_run(attributes)
    if not seen:
        off = ", ".join(alarms_off(attributes))
        but = f" Alarms that are off: {printable(off)}." if off else ""
        return Markup("<p>No alarm so far.{}</p>").format(but)
    return Markup("<ul>{}</ul>").format(Markup("").join(map(_alarm, reversed(seen))))


def _alarm(alarm: Alarm) -> Markup:
    where = f"in {alarm.layer}: " if alarm.layer else ""
    name, evidence = alarm.name.replace("_", " "), printable(f"{where}{alarm.evidence}")
    return Markup("<li><span>step {:,}</span><b>{}</b> {}</li>").format(alarm.step, name, evidence)
