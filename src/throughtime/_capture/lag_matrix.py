"""`lag_matrix`: the loss of each step against the state at each earlier step, through the whole model.

Each loss step is a copy of the batch in which only that step has weight; as many copies as memory allows go
through one `Probe` together.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import xarray as xr

from throughtime._capture.probe import Probe
from throughtime._errors import BatchError, LossError, NoGradientError
from throughtime._inputs import takes
from throughtime._inputs.batch import Batch, take
from throughtime._inputs.rules import whole
from throughtime._inputs.structures import is_packed, mapped, to_numpy
from throughtime._tree import reads_many_steps, state_gradients
from throughtime._vocabulary import DIRECTIONS, LAGS, VARIABLES
from throughtime.adapters.records import Array

_STATES = ("hidden_gradient", "cell_gradient")
READ_OFTEN = "read_often"  # attribute of a layer of which the loss of a single step reads several steps


@takes(loss_steps=replace(whole(1), error=LossError), memory=whole(1))
def lag_matrix(
    model: Any,
    x: Any,
    y: Any = None,
    *,
    sample_weight: Any = None,
    layers: Any = "recurrent",
    loss: Any = None,
    training: bool = False,
    adapter: Any = None,
    budget: float | str | None = None,
    loss_steps: int | None = None,
    memory: int = 2**29,
    seed: int = 0,
) -> xr.DataTree:
    """Compute Λ[s, t] = ‖dℓ_s/ds_t‖: how much the loss of step s depends on the state at step t.

    It separates the gradients of a model with a loss at every step, whose sums over all losses look flat even
    if memory is short. For an LSTM the state is the joint state (h, c).

    Parameters
    ----------
    model, x, y, layers, loss, training, adapter, budget
        See `capture`. Labels need a time axis, the second; the loss must have a value per step.
    sample_weight : array (sample,) or (sample, time), optional
        Weight of the loss of each sample or step, as in `capture`.
    loss_steps : int, optional
        Number of loss steps, drawn at random without replacement among those with weight, for an unbiased
        estimate of the mean over all of them. By default the matrix has a row for every step.
    memory : int, in bytes
        Memory for the copies of the batch and the gradients inside the layers.
    seed : int
        Seed of the draw.

    Returns
    -------
    DataTree
        A leaf per layer with `lag_matrix` (sample, loss_time, time, [direction]), in units of loss per
        unit of state, batch mean undone. In a causal model it is 0 for s < t. Both times count the
        layer's input steps: for a layer that returns its output reversed, `loss_time` is the step that
        the loss reads. Summed over `loss_time` before the norm, its rows are the total derivative
        `hidden_gradient`. `lag_mean` (lag, [direction]) is its mean over samples and weighted loss steps at
        each lag, in input steps. `lag_mean_error` is the standard error from drawing loss steps, 0 if
        all were used. `valid` is that of `capture`. The attribute `read_often` is 1 if the loss of a single
        step reads several steps of the layer, as with attention or a recurrent layer above.

    Raises
    ------
    LossError
        There is no loss per step, or the loss couples samples.
    BatchError
        The data contain no batch, or the model refuses it.

    References
    ----------
    Pascanu, Mikolov & Bengio (2013), On the difficulty of training recurrent neural networks, §2, for
    the terms dℓ_s/ds_t in each row.

    Examples
    --------
    >>> import keras, numpy as np
    >>> rnn = keras.layers.SimpleRNN(3, return_sequences=True, name="rnn")
    >>> model = keras.Sequential([keras.Input((5, 2)), rnn, keras.layers.Dense(1)])
    >>> x, y = np.ones((2, 5, 2), "float32"), np.zeros((2, 5, 1), "float32")
    >>> matrix = lag_matrix(model, x, y, loss="mse")["rnn"]["lag_matrix"]
    >>> matrix.dims, float(matrix.sel(loss_time=1).isel(time=3).max())
    (('sample', 'loss_time', 'time'), 0.0)
    """
    batch = take(x, y, sample_weight)
    settings = {"loss": loss, "layers": layers, "training": training, "adapter": adapter, "budget": budget}
    return at_steps(model, batch, draw(batch, loss_steps, seed), memory=memory, **settings)


def at_steps(
    model: Any, batch: Batch, drawn: tuple[Array, Array], *, memory: int = 2**29, **settings: Any
) -> xr.DataTree:
    """Compute the rows of drawn loss steps; `drawn` has these, and those among which they were drawn."""
    steps, among = drawn
    probe, first = _probe(model, batch, steps, settings)
    together = max(1, min(len(steps), memory // _bytes_of_copy(first)))
    if any(leaf.attrs.get("stateful") for leaf in first.leaves):
        together = 1  # their states have the size of the batch
    found: dict[str, list[tuple[Array, bool]]] = {}
    for rows in _rows(probe, batch, steps, together):
        for node in rows.subtree:
            if _gradients(node):
                leaf = node.to_dataset()
                found.setdefault(node.path, []).append((_norm(leaf, len(batch.y)), reads_many_steps(leaf)))
    leaves = {
        path: _labelled(
            np.concatenate([norms for norms, _ in parts])[: len(steps)],
            (steps, among),
            first[path].to_dataset().assign_attrs({READ_OFTEN: int(any(often for _, often in parts))}),
        )
        for path, parts in found.items()
    }
    tree = xr.DataTree.from_dict(leaves)
    tree.attrs.update({**first.attrs, "loss_steps": f"{len(steps)} of {batch.y.shape[1]}"})
    return tree


def _probe(model: Any, batch: Batch, steps: Array, settings: dict[str, Any]) -> tuple[Probe, xr.DataTree]:
    """Make the probe for the states of these layers, and one capture for planning."""
    asked = [(*states, *output) for output in (("output_gradient",), ()) for states in (_STATES, _STATES[:1])]
    for gradients in asked:
        probe = Probe(model, quantities=(*gradients, "valid", "reset"), **settings)
        try:
            first = probe(batch.x, batch.y, sample_weight=_one_hot(batch, steps[:1]))
            break
        except NoGradientError:  # none of the layers has a cell, or an output of which gradient is known
            if gradients == asked[-1]:
                raise
    if first.attrs["loss_reduction"].startswith("couples"):
        raise LossError("The loss couples samples, so that no step of one sample has a separate loss.")
    return probe, first


def _rows(probe: Probe, batch: Batch, steps: Array, together: int) -> Iterator[xr.DataTree]:
    """Capture copies of the batch, each with the loss of one step alone."""
    for start in range(0, len(steps), together):
        chunk = steps[start : start + together]
        # The last chunk is padded, so that all use one trace.
        filled = np.concatenate([chunk, np.full(together - len(chunk), chunk[-1])])
        x, y = (mapped(partial(_repeated, count=together), part) for part in (batch.x, batch.y))
        rows = probe(x, y, sample_weight=_one_hot(batch, filled))
        yield rows
        rows.children = {}  # nodes and parents are a cycle, which would keep the arrays


def _repeated(leaf: Any, count: int) -> Array:
    if is_packed(leaf):
        raise BatchError(
            f"A lag matrix is made from copies of the batch, which a {type(leaf).__name__} has no axis "
            "for. Give padded arrays, samples first."
        )
    return np.concatenate([to_numpy(leaf)] * count)


def _one_hot(batch: Batch, steps: Array) -> Array:
    """Sample weights (copy × sample, time) that leave one step of each copy, with its weight in the batch."""
    samples, length = map(int, batch.y.shape[:2])
    weights = np.zeros((len(steps), samples, length), np.float32)
    given = np.ones(samples) if batch.sample_weight is None else to_numpy(batch.sample_weight)
    if given.shape[:1] != (samples,) or given.ndim > 2:
        raise LossError(
            f"sample_weight has shape {given.shape}: a lag matrix takes one weight a sample, "
            f"({samples},), or one a step, ({samples}, {length})."
        )
    for copy, step in enumerate(steps):
        weights[copy, :, step] = given if given.ndim == 1 else given[:, step]
    return weights.reshape(-1, length)


def draw(batch: Batch, loss_steps: int | None, seed: int) -> tuple[Array, Array]:
    """Draw loss steps; return also those from which they are drawn."""
    shape = tuple(getattr(batch.y, "shape", ()))
    if len(shape) < 2 or shape[1] < 2:
        raise LossError(
            f"A lag matrix needs labels with a time axis, (sample, time, …); these have shape {shape}. "
            "For a loss at the last step alone use hidden_gradient, which is the only row of the matrix."
        )
    every, weighted = np.arange(shape[1]), batch.weighted_steps()
    among = every if weighted is None or not weighted.any() else np.flatnonzero(weighted)
    if loss_steps is None:
        return every, among
    if loss_steps >= len(among):
        return among, among
    return np.sort(np.random.default_rng(seed).choice(among, loss_steps, replace=False)), among


def _bytes_of_copy(tree: xr.DataTree) -> int:
    """Estimate the memory of one copy of the batch inside the layers from its capture.

    Besides the state gradients the adjoint needs the gates, their gradients and buffers: about six arrays of
    gate width.
    """
    leaves = [node.to_dataset() for node in tree.subtree if node.data_vars]
    states = sum(leaf[name].nbytes for leaf in leaves for name in _gradients(leaf))
    return max(1, sum(leaf.nbytes for leaf in leaves) + 11 * states)


def _gradients(leaf: xr.Dataset | xr.DataTree) -> list[str]:
    """List the names of the state gradients of a layer, if it has states."""
    known = state_gradients(leaf) if leaf.data_vars else []  # type: ignore[arg-type]
    return [name for name in known if name in leaf]


def _norm(leaf: xr.Dataset, samples: int) -> Array:
    """Norm of the joint state's gradient: (copy × sample, time, …) to (copy, sample, time, …)."""
    gradients = [leaf[name] for name in _gradients(leaf)]
    squares = sum((gradient**2).sum(str(gradient.dims[-1])) for gradient in gradients)
    norm: Array = np.sqrt(np.asarray(squares))
    return norm.reshape(-1, samples, *norm.shape[1:])


def _labelled(norms: Array, drawn: tuple[Array, Array], leaf: xr.Dataset) -> xr.Dataset:
    steps, among = _read(norms, drawn, leaf)
    together = _in_one_episode(norms, steps, leaf)
    dims = [dim for dim in leaf["hidden_gradient"].dims if dim not in ("sample", "unit")]
    directions = leaf["direction"].values if "direction" in dims else None
    runs_backward = [bool(leaf.attrs.get("go_backwards"))]
    if directions is not None:
        runs_backward = [name == DIRECTIONS[1] for name in directions]
    parts = [norms] if directions is None else np.moveaxis(norms, -1, 0)
    by_lag = [
        _by_lag(np.where(together, part, np.nan), steps, among, backward)
        for part, backward in zip(parts, runs_backward, strict=True)
    ]
    mean, error = (np.stack(values, axis=-1) for values in zip(*by_lag, strict=True))
    if directions is None:
        mean, error = mean[:, 0], error[:, 0]
    lag_dims = ("lag", *(dim for dim in dims if dim != "time"))
    return xr.Dataset(
        {
            LAGS: _variable(LAGS, ("sample", "loss_time", *dims), np.moveaxis(norms, 0, 1)),
            "lag_mean": _variable("lag_mean", lag_dims, mean),
            "lag_mean_error": _variable("lag_mean_error", lag_dims, error),
            **{name: leaf[name] for name in ("valid", "reset") if name in leaf},
        },
        coords={"loss_time": steps, **({} if directions is None else {"direction": directions})},
        attrs=leaf.attrs,
    )


def _read(norms: Array, drawn: tuple[Array, Array], leaf: xr.Dataset) -> tuple[Array, Array]:
    """Find the input step that the loss of each step reads, for the drawn steps and for all candidates.

    For a layer that returns its output reversed it is the mirrored step, unless the model reverses the output
    again: then a loss reaches states that the mirrored step could not.
    """
    mirrored, others = (norms.shape[2] - 1 - steps for steps in drawn)
    if not leaf.attrs.get("output_reversed"):
        return drawn
    earlier = np.arange(norms.shape[2]) < mirrored[:, None]
    return drawn if (norms.any(axis=1) & earlier).any() else (mirrored, others)


def _in_one_episode(norms: Array, steps: Array, leaf: xr.Dataset) -> Array:
    """Return whether there is no reset between a loss and a state, (loss_time, sample, time)."""
    if "reset" not in leaf:
        return np.ones(norms.shape[:3], bool)
    episode = np.cumsum(leaf["reset"].values, axis=1)
    same: Array = episode[:, steps].T[:, :, None] == episode[None]
    return same


def _variable(name: str, dims: tuple[Any, ...], values: Array) -> xr.Variable:
    word = VARIABLES[name]
    return xr.Variable(dims, values, {"long_name": word.symbol, "description": word.meaning})


def _by_lag(norms: Array, steps: Array, among: Array, runs_backward: bool) -> tuple[Array, Array]:
    """Return the mean over loss steps at each lag, and its standard error for drawing without replacement."""
    count = norms.shape[-1]
    mean, error = np.zeros(count), np.full(count, np.nan)
    for lag in range(count):
        times = steps + lag if runs_backward else steps - lag
        inside = (times >= 0) & (times < count) & np.isin(steps, among)
        each = norms[np.flatnonzero(inside), :, times[inside]]
        counted = ~np.isnan(each)
        values = np.nansum(each, axis=-1)[counted.any(-1)] / counted.sum(-1)[counted.any(-1)]
        drawn = len(values)
        possible = int(((among < count - lag) if runs_backward else (among >= lag)).sum())
        mean[lag] = values.mean() if drawn else np.nan
        if drawn == possible:
            error[lag] = 0.0
        elif drawn > 1:
            error[lag] = values.std(ddof=1) / np.sqrt(drawn) * np.sqrt(1 - drawn / possible)
    return mean, error
