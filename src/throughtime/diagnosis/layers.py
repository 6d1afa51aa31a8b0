"""The recurrent layers of a capture or of a recorded step, as `judge` takes them, and how they read time.

A run that stores norms of each sample at each timestep is sufficient: reach, share and horizon depend only on
the norms of vectors. A summary contains medians over samples and their intervals.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import xarray as xr

from throughtime._errors import DiagnosticError, LossError
from throughtime._inputs import structures
from throughtime._inputs.batch import Batch
from throughtime._tree import reads_many_steps, state_gradients, steps_read
from throughtime._vocabulary import CERTIFICATES, WEIGHTS
from throughtime.diagnostics.lags import valid_steps
from throughtime.diagnostics.state_jacobian import OPTIONAL

from .measure import FROM_LAST_STEP, UNTIL_READ
from .swap import Losing, Reading, Swapped, predicts_at_steps
from .words import phrase

FULL, TIMESTEP, SUMMARY = "full", "timestep", "summary"
_SCALARS = ("loss", "reduction_factor", *CERTIFICATES)
# Norms for error at the last step alone, if the model reads several steps.
LAST_STEP = ("last_step_gradient_norm", "last_step_contribution")
LAG_INTERVAL = ("lag_ratio_low", "lag_ratio_high", "lag_ratio_samples")
USE = ("use", "use_low", "use_high", "use_samples", "use_pays")  # of a sweep; all but the last by lag
_WEIGHT_NORMS = ("recurrent_kernel_norm", "recurrent_kernel_gradient_norm")
REVERSED = "is_reversed"  # attribute of a layer whose time is the input's from its end, as its labels are
_READ = ("output_gradient", "step_contribution")
_ANCHORS = 4  # steps at which the prefix swap evaluates losses
_SEVERAL = "diagnose takes batches of one length: pad them to the same number of steps"


def recurrent_layers(tree: xr.DataTree) -> dict[str, xr.Dataset]:
    """Return the recurrent leaves of a capture, by path, in its order; refuse a capture without one."""
    leaves = {node.path.strip("/"): node.to_dataset() for node in tree.leaves if node.data_vars}
    found = _until_read({path or "layer": leaf for path, leaf in leaves.items() if _is_recurrent(leaf)})
    if not found:
        names = ", ".join(leaves) or "nothing"
        raise DiagnosticError(f"This capture has no recurrent layer to diagnose. It has: {names}.")
    return found


def _until_read(leaves: dict[str, xr.Dataset]) -> dict[str, xr.Dataset]:
    """Count time only up to the step that the model reads, if it reads one step of each sample.

    A sample whose loss has no gradient, as one of weight 0, does not show that step: none of its steps count.
    """
    found = dict(leaves)
    read = {path: steps for path, leaf in leaves.items() if (steps := steps_read(leaf)) is not None}
    for length in {steps.sizes["time"] for steps in read.values()}:
        same = {path: leaves[path] for path, steps in read.items() if steps.sizes["time"] == length}
        counts = {path: read[path].sum("time") for path in same}
        selecting = [path for path, count in counts.items() if int(count.max()) == 1]
        if not selecting or directions_of(same) != {"forward"}:
            continue
        ends = xr.concat([read[path].argmax("time").where(counts[path] == 1) for path in selecting], "layer")
        end = ends.max("layer")
        if bool((end > 0).any()) and not bool((ends.min("layer") < end).any()):
            until = xr.DataArray(np.arange(length), dims="time") <= end  # False for NaN
            valid = {path: valid_steps(leaf) & until for path, leaf in same.items()}
            found |= {
                path: same[path].assign(valid=each).assign_attrs({UNTIL_READ: 1})
                for path, each in valid.items()
            }
    return found


def _is_recurrent(leaf: xr.Dataset) -> bool:
    of_states = state_gradients(leaf)
    signs = ["hidden", "lag_matrix", "gate_activation", *of_states, "recurrent_kernel"]
    signs += ["lag_ratio", *(f"{name}_norm" for name in of_states)]  # in a run that does not keep vectors
    return any(name in leaf for name in signs) or "missing_inside" in leaf.attrs


def by_direction(leaves: Mapping[str, xr.Dataset]) -> dict[str, xr.Dataset]:
    """Separate the directions of each layer: `path[forward]`."""
    found = {}
    for path, leaf in leaves.items():
        if "direction" not in leaf.dims:
            found[path] = leaf
            continue
        for name in map(str, leaf["direction"].values):
            found[f"{path}[{name}]"] = leaf.sel(direction=name)
    return found


def directions_of(leaves: Mapping[str, xr.Dataset]) -> frozenset[str]:
    """Return the directions in which layers process time."""
    found = set()
    for leaf in leaves.values():
        flipped = bool(leaf.attrs.get("go_backwards", 0))
        names = map(str, leaf["direction"].values) if "direction" in leaf.coords else ["forward"]
        found |= {"backward" if (name == "backward") != flipped else "forward" for name in names}
    return frozenset(found)


def join(captures: Sequence[Mapping[str, xr.Dataset]]) -> dict[str, xr.Dataset]:
    """Join the samples of batches of one length; variables without samples are those of the first."""
    if len(captures) == 1:
        return dict(captures[0])
    return {path: _join([each[path] for each in captures]) for path in captures[0]}


def _join(leaves: Sequence[xr.Dataset]) -> xr.Dataset:
    if len({leaf.sizes.get("time") for leaf in leaves}) > 1:
        raise DiagnosticError(f"{_SEVERAL}; these have {sorted({leaf.sizes['time'] for leaf in leaves})}.")
    if any("valid" in leaf for leaf in leaves):  # of one batch alone, if another shows no step that is read
        leaves = [leaf.assign(valid=valid_steps(leaf)) for leaf in leaves]
    first = leaves[0]
    by_sample = [name for name, values in first.data_vars.items() if "sample" in values.dims]
    together = xr.concat([leaf[by_sample] for leaf in leaves], "sample", combine_attrs="override")
    worst = {
        name: xr.concat([leaf[name] for leaf in leaves], "batch").max("batch")
        for name in CERTIFICATES
        if name in first
    }
    if "loss" in first and not first["loss"].ndim:
        worst["loss"] = xr.concat([leaf["loss"] for leaf in leaves], "batch").mean("batch")
    kept = first.drop_vars([*by_sample, *worst])
    return kept.merge(together).assign(worst).assign_attrs(first.attrs)


def reading_of(leaves: Mapping[str, xr.Dataset], batch: Batch, *, by_step: bool, lag: int | None) -> Reading:
    """Describe how layers that read the same time read it.

    If the loss has a value at every step, some steps are evaluated (`by_step`): those with weight and with
    inputs as old as the requested lag.
    """
    leaf = next(iter(leaves.values()))
    is_reversed = REVERSED in leaf.attrs
    reading = Reading(np.asarray(valid_steps(leaf)), directions_of(leaves), is_reversed=is_reversed)
    if not by_step:
        return reading
    weighted = batch.weighted_steps()
    reading = replace(reading, counted=reading.valid & (True if weighted is None else weighted))
    return replace(reading, anchors=anchors(reading, _ANCHORS, lag or 0))


def why_not_swapped(attributes: Mapping[Any, Any], leaves: Mapping[str, xr.Dataset]) -> str:
    """Return why inputs cannot be exchanged between samples; empty where they can."""
    why = ""
    if str(attributes.get("loss_reduction", "")).startswith("couples"):
        why = phrase("coupled")
    if any("reset" in leaf and leaf["reset"].any() for leaf in leaves.values()):
        why = phrase("resets")
    if any(leaf.attrs.get("output_reversed") for leaf in leaves.values()) and len(leaves) > 1:
        why = phrase("reversed")
    return why


def anchors(reading: Reading, count: int, lag: int) -> tuple[int, ...]:
    """Choose counted steps whose losses are evaluated, in the half that has most inputs before it."""
    counted, read = np.asarray(reading.counted.any(axis=0)), reading.ways
    steps = np.flatnonzero(counted[::-1] if read == {"backward"} else counted)
    quarter, end = len(steps) // 4, len(steps) - 1
    start, end = (quarter, end - quarter) if len(read) > 1 else (len(steps) // 2, end)
    start = max(start, min(int(np.searchsorted(steps, lag)), end)) if len(read) == 1 else start
    found = steps[np.unique(np.linspace(start, end, count).round().astype(int))] if len(steps) else steps
    return tuple(int(len(counted) - 1 - step if read == {"backward"} else step) for step in found)


def has_loss_per_step(
    losing: Losing, leaves: Mapping[str, xr.Dataset], batch: Batch, axes: object, *, seed: int, label: int = 0
) -> bool:
    """Whether the loss has a value at every step: labels for each, and gradient that arrives at several.

    `label` is the place of an array of labels among all. If no output of the model has three `axes`, labels
    (sample, time) may be the classes or targets of one prediction: what they are predicted from decides.
    """
    shape = tuple(getattr(structures.leaves(batch.y)[label], "shape", ())) if batch.y is not None else ()
    if len(shape) < 2 or shape[1] < 2:
        return False
    same = {path: leaf for path, leaf in leaves.items() if leaf.sizes.get("time") == shape[1]}
    is_before_last = (weighted := batch.weighted_steps()) is not None and weighted[:-1].any()
    if not same or not (is_before_last or reads_many_steps([*same.values()][-1])):
        return False
    if axes != 2 or len(shape) > 2:
        return True
    reading = reading_of(same, batch, by_step=False, lag=None)
    readings = [reading, reading.turned] if reading.ways == {"backward"} else [reading]
    try:
        return any(
            predicts_at_steps(losing, batch, each, seed=seed, label=label, otherwise=True)
            for each in readings
        )
    except LossError:  # single samples have none
        return True


def level(leaf: xr.Dataset) -> str:
    """Return the level at which a layer was recorded."""
    names = (f"{name}_norm" for name in state_gradients(leaf))
    if any("sample" in leaf[name].dims for name in names if name in leaf):
        return TIMESTEP
    return SUMMARY if "lag_ratio" in leaf else FULL


def variables_to_read(leaf: xr.Dataset) -> list[str]:
    """List the variables that reach, share and horizon need, and weights, which may be broken."""
    read = [*_SCALARS, *("valid", "lag_matrix", "lag_ratio", "input", "hidden")]
    read += [*LAG_INTERVAL, *USE, *LAST_STEP, *OPTIONAL]
    read += [name for base in (*_READ, *state_gradients(leaf), *WEIGHTS) for name in (base, f"{base}_norm")]
    return [name for name in read if name in leaf]


def as_captured(leaf: xr.Dataset) -> xr.Dataset:
    """Replace vectors by their norms, for each sample."""
    if level(leaf) != TIMESTEP:
        return leaf
    variables = {name: leaf[name] for name in (*_SCALARS, "valid") if name in leaf}
    for name in (*_READ, *state_gradients(leaf)):
        norms = leaf.get(f"{name}_norm")
        if norms is None or "sample" not in norms.dims:
            continue
        norms = norms.where(leaf["valid"], 0.0) if "valid" in leaf and "time" in norms.dims else norms
        variables[name] = norms if name == "step_contribution" else norms.expand_dims(unit=1, axis=-1)
    variables |= {name: leaf[name] for name in _WEIGHT_NORMS if name in leaf}
    captured = xr.Dataset(variables, attrs=leaf.attrs)
    if not all(name in leaf for name in LAST_STEP) or not reads_many_steps(captured):
        return captured
    joint, *others = state_gradients(leaf)
    norms, variables["step_contribution"] = (leaf[name].fillna(0.0) for name in LAST_STEP)
    variables[joint] = norms.expand_dims(unit=1, axis=-1)
    variables |= {name: xr.zeros_like(variables[joint]) for name in others}
    return xr.Dataset(variables, attrs={**leaf.attrs, FROM_LAST_STEP: 1})


def stored_swap(leaf: xr.Dataset) -> Swapped:
    """Return what each sample loses with exchanged inputs, if a sweep has stored it."""
    lags = np.flatnonzero(np.isfinite(leaf["use"].values)) if "use_changes" in leaf else ()
    if not len(lags):
        return Swapped(reason=phrase("needs_model"))
    return Swapped((0, *map(int, lags)), leaf["use_changes"].values, leaf["use_before"].values)


def find_nonfinite(leaf: xr.Dataset) -> str:
    """Name a loss or a norm of weights that is not finite; empty if there is none."""
    for name, values in sorted(leaf.data_vars.items(), key=lambda each: each[0] != "loss"):
        is_norm = str(name).endswith("_norm") and not {"time", "quantile"} & set(values.dims)
        if (name == "loss" or is_norm) and not np.isfinite(values).all():
            return str(name)
    return ""
