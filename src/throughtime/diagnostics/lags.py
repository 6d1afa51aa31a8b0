"""Time in processing order: the one place that converts timesteps into lags.

A lag counts valid steps back from the last step that a layer processed, separately for each direction, and
never across a reset of its states. Measures read `signals`, or order their own variable with `by_lag`.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from throughtime._errors import DiagnosticError, SchemaError
from throughtime._tree import require, state_gradients
from throughtime.diagnostics.labelled import apply, once
from throughtime.diagnostics.thresholds import ROUNDING

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
_FADED = 1e-20  # of the largest gradient


def valid_steps(layer: xr.Dataset) -> xr.DataArray:
    """Whether each step counts: `valid`, or all True if nothing is masked.

    Dims: (sample, time).
    """
    absent = [dim for dim in ("sample", "time") if dim not in layer.dims]
    if absent:
        raise SchemaError(
            f"This layer has no dim {absent[0]!r}. Keep it: .isel(sample=[0]), not .isel(sample=0)."
        )
    if "valid" in layer:
        return layer["valid"].astype(bool)
    shape = (layer.sizes["sample"], layer.sizes["time"])
    return xr.DataArray(np.ones(shape, dtype=bool), dims=("sample", "time"))


def steps_of_last_episode(layer: xr.Dataset) -> xr.DataArray:
    """Whether each step has a lag: it is valid, and no later step resets the sample's states.

    Dims: (sample, time).
    """
    valid = valid_steps(layer)
    if "reset" not in layer:
        return valid
    episode = layer["reset"].astype(int).cumsum("time")
    return valid & (episode == episode.where(valid).max("time"))


def edges(layer: xr.Dataset) -> npt.NDArray[np.intp]:
    """Return the steps that gradient reaches and from which it goes back in no sample, as after a `detach`.

    Steps at which a state is reset, and those whose gradient has faded to nearly 0, do not count.
    """
    name = next(iter(state_gradients(layer)), "")
    if not {"carried_gradient", "reset", name} <= {*layer.data_vars} or "step" in layer.dims:
        return np.zeros(0, np.intp)
    gradient = np.abs(layer[name].transpose("time", ...).values)
    size = np.nan_to_num(gradient.reshape(len(gradient), -1)).max(axis=1)
    passes = (layer["carried_gradient"] != 0) | layer["reset"].shift(time=-1, fill_value=False)
    crossed = passes.any("sample").values[:-1]
    return np.flatnonzero(~crossed & (size[1:] > _FADED * size.max())) + 1


def runs_backward(layer: xr.Dataset) -> xr.DataArray:
    """Whether the last step of the input is processed first.

    Dims: (direction) for a bidirectional layer, otherwise none.
    """
    flipped = bool(layer.attrs.get("go_backwards", 0))
    if "direction" in layer.dims and "direction" not in layer.coords:
        raise SchemaError("The dim 'direction' has no labels. Assign the labels 'forward' and 'backward'.")
    if "direction" in layer.coords:
        return (layer["direction"] == "backward") != flipped
    return xr.DataArray(flipped)


def by_lag(values: xr.DataArray, valid: xr.DataArray, backward: xr.DataArray) -> xr.DataArray:
    """Replace `time` by `lag`: lag 0 is the last valid step; lags beyond the length of a sample are NaN.

    >>> padded = xr.DataArray([1.0, 2.0, 3.0], dims="time"), xr.DataArray([True, True, False], dims="time")
    >>> by_lag(*padded, xr.DataArray(False)).values
    array([ 2.,  1., nan])
    """
    steps = values.sizes["time"]
    over, sizes = [("time",)] * 2, {"lag": steps}
    ordered: xr.DataArray = apply(
        latest_first, values, valid, backward, over=over, returns=[("lag",)], sizes=sizes
    )
    return ordered.assign_coords(lag=np.arange(steps))


def latest_first(values: npt.NDArray[Any], valid: Flags, backward: Flags) -> Floats:
    """Do the same as `by_lag` for plain arrays whose last axis is time."""
    flip = np.asarray(backward)[..., None]
    valid = np.where(flip, valid, valid[..., ::-1])
    values = np.where(flip, values, values[..., ::-1]).astype(np.float64)
    axes = max(values.ndim, valid.ndim)
    values = values.reshape((1,) * (axes - values.ndim) + values.shape)
    valid = valid.reshape((1,) * (axes - valid.ndim) + valid.shape)
    order = np.argsort(~valid, axis=-1, kind="stable")
    present = np.take_along_axis(valid, order, axis=-1)
    return np.where(present, np.take_along_axis(values, order, axis=-1), np.nan)


def log_norm(values: xr.DataArray, *dims: str) -> xr.DataArray:
    """Natural logarithm of the Euclidean norm over some dims; −∞ if all values are exactly 0.

    Squares of very small and very large numbers stay within the range of float64.
    """
    norms: xr.DataArray = apply(log_norm_of, values, over=[dims], axes=len(dims))
    return norms


def log_norm_of(values: npt.NDArray[Any], axes: int) -> Floats:
    """Do the same as `log_norm` over the last axes of a plain array."""
    shape = values.shape[: values.ndim - axes]
    sizes = np.abs(values.astype(np.float64)).reshape(*shape, -1)
    peak = np.max(sizes, axis=-1)
    scale = np.where((peak > 0) & np.isfinite(peak), peak, 1.0)
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        squares = np.sum((sizes / scale[..., None]) ** 2, axis=-1)
        norms = np.log(scale) + 0.5 * np.log(squares)
    return np.asarray(norms, dtype=np.float64)


def log_state_gradient(layer: xr.Dataset) -> xr.DataArray:
    """Logarithm of ‖dL/ds_t‖ on the joint state: hidden and all other states of the layer.

    Dims: (sample, time, [direction]).
    """
    # dL/dh of an LSTM can be 0 everywhere although its cell remembers perfectly.
    kept, norms = ("step", "sample", "time", "direction"), []
    for name in state_gradients(layer):
        gradient = require(layer, name)
        norms.append(log_norm(gradient, *(str(dim) for dim in gradient.dims if dim not in kept)))
    joint: xr.DataArray = apply(log_joint_norm, *norms)
    return joint


def log_joint_norm(first: Floats, *others: Floats) -> Floats:
    """Return the logarithm of the norm of parts together, from the logarithms of their norms."""
    for other in others:
        with np.errstate(invalid="ignore"):  # an infinity and a NaN give NaN
            first = np.logaddexp(2 * first, 2 * other) / 2
    return np.asarray(first, dtype=np.float64)


def signals(layer: xr.Dataset) -> xr.Dataset:
    """Gradient of each sample by lag, and its ratio to lag 0, as natural logarithms.

    The source is `lag_matrix` if the layer has one, with equal weight for every loss step; otherwise it is
    `hidden_gradient` and `cell_gradient`, which depend on the lag alone if the loss reads only the last step.

    `log_signal` and `log_ratio` (sample, lag, [direction]) are NaN beyond a sample's length, and `log_ratio`
    for a sample without a usable lag 0; `length` (sample) is the number of its lags, and `no_steps`,
    `no_signal` and `non_finite` (sample) are why a sample has no ratios. Lazy if `layer` is lazy.
    """
    return once(_signals, layer)


def _signals(layer: xr.Dataset) -> xr.Dataset:
    matrix = "lag_matrix" in layer
    found = _per_loss_step(layer) if matrix else _from_gradient(layer)
    log_signal = found["log_signal"]
    found["log_ratio"], found["non_finite"] = apply(
        to_first,
        log_signal,
        found["length"],
        over=[("lag",)],
        returns=[("lag",), ()],
        types=[np.float64, np.bool_],
    )
    found["no_signal"] = log_signal.isel(lag=0, drop=True) == -np.inf
    if matrix:
        found = _over_loss_steps(found)
    found["no_steps"] = found["length"] == 0
    return found.assign_attrs(basis="lag_matrix" if matrix else "gradient")


def to_first(log_signal: Floats, length: npt.NDArray[np.int_]) -> tuple[Floats, Flags]:
    """Divide each sample's signal, (…, lag), by that at lag 0; return also whether a lag is not finite.

    All ratios of a sample are NaN if that is so, or if its signal at lag 0 is 0.
    """
    first, inside = log_signal[..., :1], np.arange(log_signal.shape[-1]) < length[..., None]
    broken = ((np.isnan(log_signal) | (log_signal == np.inf)) & inside).any(axis=-1)
    with np.errstate(invalid="ignore"):
        usable = np.where(np.isfinite(first) & ~broken[..., None], first, np.nan)
        return np.asarray(log_signal - usable), np.asarray(broken)


def _from_gradient(layer: xr.Dataset) -> xr.Dataset:
    gradient, valid = log_state_gradient(layer), steps_of_last_episode(layer)
    log_signal = by_lag(gradient, valid, runs_backward(layer))
    length = valid.sum("time") + xr.zeros_like(log_signal.isel(lag=0, drop=True), dtype=int)
    return xr.Dataset({"log_signal": log_signal, "length": length})


def _per_loss_step(layer: xr.Dataset) -> xr.Dataset:
    matrix, backward, valid = layer["lag_matrix"], runs_backward(layer), valid_steps(layer)
    steps = matrix.sizes["time"]
    if "loss_time" not in matrix.coords and matrix.sizes["loss_time"] != steps:
        raise DiagnosticError(
            f"'lag_matrix' has {matrix.sizes['loss_time']} of {steps} loss steps and no coordinate "
            "'loss_time' that identifies them. Assign it: leaf.assign_coords(loss_time=[...])."
        )
    read = xr.DataArray(np.asarray(matrix["loss_time"], dtype=int), dims="loss_time")
    time = xr.DataArray(np.arange(steps), dims="time")
    before = ((time <= read) & ~backward) | ((time >= read) & backward)
    within = before & valid & valid.isel(time=read)
    if "reset" in layer:
        episode = layer["reset"].astype(int).cumsum("time")
        within = within & (episode == episode.isel(time=read))
    logs = log_norm(matrix.drop_vars("loss_time", errors="ignore"))
    log_signal = by_lag(logs, within, backward)
    length = within.sum("time") + xr.zeros_like(log_signal.isel(lag=0, drop=True), dtype=int)
    return xr.Dataset({"log_signal": log_signal, "length": length})


def _over_loss_steps(found: xr.Dataset) -> xr.Dataset:
    signal, ratio = (
        apply(_log_mean_exp, found[name], over=[("loss_time",)]) for name in ("log_signal", "log_ratio")
    )
    read = found["length"] > 0
    broken = (found["non_finite"] & read).any("loss_time")
    counts = (read & ~found["no_signal"]) | found["no_signal"].all("loss_time")
    return xr.Dataset(
        {
            "log_signal": signal,
            "log_ratio": ratio.where(~broken),
            "length": found["length"].where(counts, 0).max("loss_time"),
            # A loss step without signal is excluded; a sample is excluded if no loss step remains.
            "no_signal": (found["no_signal"] | ~read).all("loss_time") & read.any("loss_time"),
            "non_finite": broken,
        }
    )


def _log_mean_exp(values: Floats) -> Floats:
    count = np.sum(~np.isnan(values), axis=-1)
    peak = np.fmax.reduce(values, axis=-1)
    base = np.where(np.isfinite(peak), peak, 0.0)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        total = np.nansum(np.exp(values - base[..., None]), axis=-1)
        means = np.where(count > 0, base + np.log(total) - np.log(count), np.nan)
    return np.asarray(means, dtype=np.float64)


def has_underflowed(log_signal: xr.DataArray, smallest_normal: float) -> xr.DataArray:
    """Whether a signal underflowed: below the smallest normal number, or 0 directly after such a value.

    An exact 0 after a signal of ordinary size is no underflow: the gradient truly stops there.
    """
    lag, smallest = [("lag",)], np.log(smallest_normal) - ROUNDING
    found: xr.DataArray = apply(
        _has_underflowed, log_signal, over=lag, returns=lag, types=[np.bool_], log_smallest=smallest
    )
    return found


def _has_underflowed(log_signal: Floats, *, log_smallest: float) -> Flags:
    lags = np.arange(log_signal.shape[-1])
    latest = np.maximum.accumulate(np.where(np.isfinite(log_signal), lags, -1), axis=-1)
    shown = np.take_along_axis(log_signal, np.maximum(latest, 0), axis=-1)
    small = (latest >= 0) & (shown < log_smallest)
    return np.asarray(small & ~np.isnan(log_signal), dtype=np.bool_)


def exclusions(found: xr.Dataset) -> dict[str, xr.DataArray]:
    """Count the excluded samples by reason."""
    return {name: found[name].sum("sample") for name in ("no_steps", "no_signal", "non_finite")}
