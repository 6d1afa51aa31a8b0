"""`Overview`: a run or a capture with what matters first, as a notebook and `tt.summary` show it."""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from markupsafe import Markup
from rich.filesize import decimal

from throughtime._common.text.tables import Items, Paragraph, Part, Shown, Table, as_notebook
from throughtime._errors import ThroughTimeError
from throughtime._store.open_run import open_run
from throughtime._tree import at_place, evenly, recorded_steps
from throughtime.diagnosis import Diagnosis, diagnose
from throughtime.diagnosis.brief import headline
from throughtime.diagnosis.layers import by_direction
from throughtime.diagnosis.results import NOT_MEASURED, Verdict
from throughtime.diagnosis.summarized import horizon_of
from throughtime.diagnosis.training import losses
from throughtime.diagnosis.words import size
from throughtime.diagnostics.alarm import Alarm, alarms_of_run
from throughtime.diagnostics.checks import agreement

from .levels import reduce_tree
from .numbers import most_saturated

MOST_ROWS = 7


@dataclass(frozen=True, repr=False)
class Overview(Shown):
    """A run or a capture at a glance; prints in a terminal and in a notebook.

    Attributes
    ----------
    headline, state : str
        The result of the last record; steps, loss, framework, and where the numbers are.
    layers : DataFrame
        One row per layer and direction, at the last record. An open forget or update gate is not saturated.
    history : DataFrame
        One row per record, at most 7 chosen evenly, or 2 of whole captures: step, loss, horizon per layer.
    alarms : tuple of Alarm
    """

    headline: str
    state: str
    layers: pd.DataFrame
    history: pd.DataFrame
    alarms: tuple[Alarm, ...] = ()

    def to_dataframe(self) -> pd.DataFrame:
        """Return `history`."""
        return self.history

    def __parts__(self) -> Iterator[Part]:
        yield Paragraph(self.headline, bold=True)
        yield Paragraph(self.state)
        for frame in (self.layers, self.history):
            if len(frame) > (frame is self.history):
                rows = frame.map(lambda each: f"{each:.3g}" if isinstance(each, float) else str(each))
                yield Table(tuple(rows.itertuples(index=False, name=None)), tuple(map(str, frame.columns)))
        if self.alarms:
            yield Items("Alarms", tuple(map(str, self.alarms)))


def overview(tree: xr.DataTree) -> Overview:
    """Summarise a run, or a capture; of a run only the last record and a few small arrays are read."""
    steps, attributes = recorded_steps(tree), tree.root.attrs
    places = evenly(len(steps), 2 if _is_full(tree) else MOST_ROWS)
    last = _summarize(at_place(tree, places[-1]) if steps else tree)
    alarms = tuple(each for each in alarms_of_run(attributes) if each.layer in ("", *_leaves(tree)))
    found = None
    with suppress(ThroughTimeError):
        found = diagnose(last)
    lost = losses(tree) if steps else losses(last)
    state = (
        f"{len(steps)} record{'s' * (len(steps) != 1)} to step {steps[-1]:,}" if steps else _sizes(tree),
        f"loss {first_to_last(f'{each:.3g}' for each in lost)}" if lost else "",
        f"{attributes.get('framework', '')} {attributes.get('framework_version', '')}".strip(),
        describe_storage(tree),
    )
    return Overview(
        "No recurrent layer with gradients." if found is None else _headline(found),
        " · ".join(filter(None, state)),
        pd.DataFrame(list(_layers(last, found, alarms if steps else None))),
        pd.DataFrame(_history(tree, places, steps, lost) if steps else {}),
        alarms,
    )


def first_to_last(words: Iterable[str]) -> str:
    """Join the first and the last of some texts by an arrow."""
    first, *others = words
    return " → ".join([first, *others[-1:]])


def show_monitor(path: Path, step: int, *, is_recording: bool) -> str:
    """Show a monitor in a notebook: whether it records, and its run as far as it is stored."""
    idle = "Not recording: training has not begun, or it has ended."
    state = f"Recording, step {step:,}." if is_recording else idle
    parts: list[Shown | Part] = [Paragraph(state, bold=True), Paragraph(f"Run: {path}")]
    with suppress(ThroughTimeError):
        run = open_run(path)
        parts = [parts[0], overview(run)] if recorded_steps(run) else parts
    return str(as_notebook(*parts))


def in_notebook(tree: xr.DataTree, arrays: str) -> str:
    """Show a run or a capture: the overview with xarray's view folded below, or only that view."""
    with suppress(ThroughTimeError):
        return str(as_notebook(overview(tree), below=Markup(arrays)))
    return arrays


def describe_storage(tree: xr.DataTree) -> str:
    """Describe where the numbers are, and how much space they take."""
    source = tree.root.encoding.get("source")
    if source is None:
        return f"in memory, {decimal(tree.nbytes)}"
    path = Path(source)
    files = [path] if path.is_file() else [each for each in path.rglob("*") if each.is_file()]
    return f"{path}, {decimal(sum(each.stat().st_size for each in files))} in {len(files)} files"


def _summarize(tree: xr.DataTree) -> xr.DataTree:
    """Reduce a capture or a record to medians over samples, unless it is a summary already."""
    if _is_full(tree):
        tree = reduce_tree(tree, "summary")
    leaves = {node.path: node.to_dataset().drop_dims("sample", errors="ignore") for node in tree.leaves}
    return xr.DataTree.from_dict(leaves)


def _headline(found: Diagnosis) -> str:
    is_decided = bool(found.layers) or found.verdict is Verdict.UNSTABLE
    return f"{headline(found)}." if is_decided else found.text


def _layers(
    last: xr.DataTree, found: Diagnosis | None, alarms: tuple[Alarm, ...] | None
) -> Iterator[dict[str, str]]:
    reach = f"reach R({found.lag})" if found is not None and found.lag else "reach"
    for path, leaf in by_direction(_leaves(last)).items():
        kind, (gate, share) = str(leaf.attrs.get("kind", "")), most_saturated(leaf)
        answered = None if found is None else found.layers.get(path)
        value = np.nan if answered is None else answered.reach.value
        mine = (each for each in alarms or () if each.layer in ("", path.partition("[")[0]))
        names = dict.fromkeys(each.name.replace("_", " ") for each in mine)
        yield {
            "layer": f"{path} ({kind})" if kind else path,
            "horizon, steps": NOT_MEASURED if answered is None else answered.horizon,
            reach: NOT_MEASURED if np.isnan(value) else size(value),
            "saturation": f"{gate} gate {share:.0%}" if gate else "–",
            **({} if alarms is None else {"alarms": ", ".join(names) or "none"}),
            "certificate": agreement(leaf),
        }


def _history(
    tree: xr.DataTree, places: list[int], steps: list[int], lost: tuple[float, ...]
) -> dict[str, list[Any]]:
    """Read the horizons at some records."""
    if _is_full(tree):
        captures = [_leaves(_summarize(at_place(tree, place)), "lag_ratio") for place in places]
        read = {path: xr.concat([each[path] for each in captures], "step") for path in captures[0]}
    else:
        read = {path: leaf.isel(step=places).load() for path, leaf in _leaves(tree, "lag_ratio").items()}
    horizons = {
        f"horizon {path}": list(map(horizon_of, leaf["lag_ratio"].transpose("step", ...).values))
        for path, leaf in by_direction(read).items()
    }
    known = {"loss": [lost[place] for place in places]} if lost else {}
    return {"step": [steps[place] for place in places], **known, **horizons}


def _is_full(tree: xr.DataTree) -> bool:
    return not any("lag_ratio" in node.data_vars for node in tree.leaves)


def _leaves(tree: xr.DataTree, name: str = "") -> dict[str, xr.Dataset]:
    """Return the layers by path; with a name only this variable of the layers that have it."""
    leaves = {node.path.strip("/") or "layer": node.to_dataset() for node in tree.leaves if node.data_vars}
    return {path: leaf[[name]] for path, leaf in leaves.items() if name in leaf} if name else leaves


def _sizes(tree: xr.DataTree) -> str:
    sizes = {dim: max(int(node.sizes.get(dim, 0)) for node in tree.subtree) for dim in ("sample", "time")}
    words = {"sample": "samples", "time": "timesteps"}
    return ", ".join(f"{count} {words[dim]}" for dim, count in sizes.items() if count)
