"""What the page says of a run in words: where it is, how far it is, what was seen."""

from __future__ import annotations

import html
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from throughtime._alarm import alarms_of_run, alarms_off
from throughtime._errors import ThroughTimeError
from throughtime._live.records import MIDDLE, Rows
from throughtime.diagnosis.summarized import horizon_of
from throughtime.plots.data import norm_symbol

STYLE = """
:host { color: var(--ink); font: 14px/1.5 system-ui, -apple-system, "Segoe UI", sans-serif; width: 100%; }
dl { display: flex; flex-wrap: wrap; gap: 0.75rem; margin: 0; }
dl div, li { background: var(--panel); }
dl div { border: 1px solid var(--line); border-radius: 8px; padding: 0.5rem 0.9rem; min-width: 7.5rem; }
dt { color: var(--soft); font-size: 0.8rem; }
dd { margin: 0; font-size: 1.25rem; font-variant-numeric: tabular-nums; }
p { margin: 0; color: var(--soft); }
p b { color: var(--ink); font-weight: 600; }
ul { margin: 0; padding: 0; list-style: none; }
li { border-left: 4px solid #d55e00; border-radius: 0 6px 6px 0; padding: 0.4rem 0.8rem; margin: 0 0 0.4rem; }
li b { font-weight: 600; }
li span { color: var(--soft); margin-right: 0.6rem; font-variant-numeric: tabular-nums; }
"""


def waiting(path: Path) -> str:
    """Say that there is no run yet."""
    return f"<p>Waiting for <b>{html.escape(str(path))}</b>: a monitor makes it when training begins.</p>"


def unreadable(path: Path, error: Exception) -> str:
    """Say why a run cannot be shown."""
    known = str(error) if isinstance(error, ThroughTimeError) else f"{type(error).__name__}: {error}"
    return f"<p><b>{html.escape(str(path))}</b> cannot be shown: {html.escape(known)}</p>"


def state(path: Path, attributes: Mapping[Any, Any], committed_at: float, stride: int) -> str:
    """Say which run this is, of what, and when it grew last."""
    known = {str(name): str(value) for name, value in attributes.items()}
    told = [f"<b>{html.escape(str(path))}</b>"]
    if "framework" in known:
        told.append(html.escape(f"{known['framework']} {known.get('framework_version', '')}".strip()))
    if "batch" in known:
        told.append(html.escape(f"batch: {known['batch']}"))
    told.append(f"last record at {time.strftime('%H:%M:%S', time.localtime(committed_at))}")
    if stride > 1:
        told.append(f"the image has one record in {stride}")
    return f"<p>{' · '.join(told)}</p>"


def numbers(rows: Rows, recorded: int, quantity: str) -> str:
    """Tabulate the last record."""
    norms, ratios = rows.norms[-1, MIDDLE], rows.ratios[-1]
    told = {
        "training step": f"{rows.steps[-1]:,}",
        "recorded steps": f"{recorded:,}",
        "loss": _number(rows.loss[-1]),
        f"{norm_symbol(quantity)}, last timestep": _number(_end(norms, -1)),
        f"{norm_symbol(quantity)}, first timestep": _number(_end(norms, 0)),
    }
    if len(ratios):
        half = len(ratios) // 2
        told[f"signal at lag {half}"] = _number(ratios[half])
        told["horizon, lags above 1 %"] = horizon_of(ratios)
    return (
        f"<dl>{''.join(f'<div><dt>{name}</dt><dd>{value}</dd></div>' for name, value in told.items())}</dl>"
    )


def _end(norms: Any, place: int) -> float:
    """First or last step that is valid in some sample."""
    valid = norms[~np.isnan(norms)]
    return float(valid[place]) if len(valid) else float("nan")


def _number(value: float) -> str:
    return f"{float(value):.3g}" if np.isfinite(value) else ("NaN" if np.isnan(value) else "∞")


def alarms(attributes: Mapping[Any, Any]) -> str:
    """List what was seen, the latest first."""
    seen = alarms_of_run(attributes)
    if not seen:
        off = alarms_off(attributes)
        but = f" These were off: {html.escape(', '.join(off))}." if off else ""
        return f"<p>No alarm so far.{but}</p>"
    items = "".join(
        f"<li><span>step {alarm.step:,}</span><b>{html.escape(alarm.name.replace('_', ' '))}</b> "
        f"{html.escape(f'in {alarm.layer}: ' if alarm.layer else '')}{html.escape(alarm.evidence)}</li>"
        for alarm in reversed(seen)
    )
    return f"<ul>{items}</ul>"
