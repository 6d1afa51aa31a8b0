"""Reads a tree: its one layer, a variable or the reason why it is missing, the recorded training steps.

The tree may be a capture or a run; a run larger than memory is read one step at a time.
"""

from collections.abc import Callable, Iterable

import numpy as np
import xarray as xr

from throughtime._errors import SchemaError, did_you_mean
from throughtime._vocabulary import LAGS, reason_key

Layer = xr.DataTree | xr.Dataset
STEP = "step"
NOT_RECORDED = "the run stores only norms; Monitor(…, quantities='full') records whole captures"


class Tree(xr.DataTree):  # type: ignore[no-untyped-call]
    """A capture or a run: an `xarray.DataTree` whose view in a notebook begins with what matters."""

    __slots__ = ()

    def _repr_html_(self) -> str:
        from throughtime._monitor.overview import in_notebook  # noqa: PLC0415 - a view from a higher room

        return in_notebook(self, super()._repr_html_())  # type: ignore[no-untyped-call]


def states(dataset: xr.Dataset) -> tuple[str, ...]:
    """Names of the states of a captured layer; `hidden` is first."""
    names = dataset.attrs.get("states")
    if names is not None:
        return tuple(str(names).split(", "))
    has_cell = dataset.attrs.get("kind") == "lstm" or "cell_gradient" in dataset
    return ("hidden", "cell") if has_cell else ("hidden",)


def state_gradients(dataset: xr.Dataset) -> list[str]:
    """Names of the total derivatives with respect to the states of a captured layer."""
    return [f"{state}_gradient" for state in states(dataset)]


def has_state_gradients(dataset: xr.Dataset) -> bool:
    """Whether the total derivatives with respect to all states were captured."""
    return all(name in dataset for name in state_gradients(dataset))


def layer(captured: Layer) -> xr.Dataset:
    """Return the variables of the one layer in a tree, node or Dataset.

    Parameters
    ----------
    captured : DataTree with one leaf, a leaf, or Dataset

    Returns
    -------
    Dataset

    Raises
    ------
    SchemaError
        The tree has several leaves, which the message lists, or none.
    """
    if isinstance(captured, xr.Dataset):
        return captured
    if not isinstance(captured, xr.DataTree):
        raise SchemaError(
            f"Expected a capture, one of its layers or a Dataset, got {type(captured).__name__}. "
            "Make one with tt.capture(model, x, y)."
        )
    leaves = [node for node in captured.leaves if node.data_vars]
    if len(leaves) != 1:
        names = ", ".join(node.path.strip("/") for node in leaves) or "none"
        choice = f" Choose one: tree[{leaves[0].path.strip('/')!r}]." if leaves else ""
        raise SchemaError(f"Expected one layer, but this capture has {len(leaves)}: {names}.{choice}")
    return leaves[0].to_dataset()


def keeps_norms(dataset: xr.Dataset) -> bool:
    """Whether this comes from a run that stores norms instead of captured arrays."""
    return any(str(name).endswith("_gradient_norm") for name in dataset.data_vars)


def require(captured: Layer, name: str) -> xr.DataArray:
    """Return one variable of one layer."""
    dataset = layer(captured)
    if name in dataset.data_vars:
        return dataset[name]
    unknown = NOT_RECORDED if keeps_norms(dataset) and name != LAGS else "it was not captured"
    reason = dataset.attrs.get(f"missing_{reason_key(name, dataset.attrs)}", unknown)
    have = ", ".join(str(variable) for variable in dataset.data_vars)
    where = str(dataset.attrs.get("layer", "this layer")).strip("/")
    others = f" It has: {have}.{did_you_mean(name, dataset.data_vars)}" if reason == unknown else ""
    raise SchemaError(f"No {name!r} for {where}: {reason}.{others}")


def recorded_steps(tree: xr.DataTree) -> list[int]:
    """List the training steps of a run; empty for a capture.

    >>> from throughtime import testing
    >>> leaf = testing.decaying()["rnn"].to_dataset()
    >>> run = xr.DataTree.from_dict({"/rnn": xr.concat([leaf, leaf], xr.DataArray([0, 50], dims="step"))})
    >>> recorded_steps(run), recorded_steps(testing.decaying())
    ([0, 50], [])
    """
    for node in tree.subtree:
        leaf = node.to_dataset()
        if STEP in leaf.coords and leaf[STEP].ndim:
            return [int(step) for step in leaf[STEP].values]
    return []


def place_of(steps: list[int], step: int | None) -> int:
    """Return the position of a training step; that of the last one for None."""
    if not steps:
        raise SchemaError("The run holds no step yet.")
    if step is not None and step not in steps:
        nearest = min(steps, key=lambda each: abs(each - step))
        raise SchemaError(f"Step {step} was not recorded; the nearest is {nearest}, of {len(steps)}.")
    return len(steps) - 1 if step is None else steps.index(step)


def at_place(
    tree: xr.DataTree, place: int, wanted: Callable[[xr.Dataset], Iterable[str]] | None = None
) -> xr.DataTree:
    """Read one record of a run, by its position: a whole or a reduced capture.

    `place` is the position among the recorded steps; `wanted` selects the variables of a layer, all by
    default.
    """
    leaves = {}
    for leaf in tree.leaves:
        dataset = leaf.to_dataset()
        dataset = dataset if wanted is None else dataset[list(wanted(dataset))]
        one = dataset.isel({STEP: place}) if STEP in dataset.dims else dataset
        leaves[leaf.path] = one.drop_vars(STEP, errors="ignore").load()
    found = xr.DataTree.from_dict(leaves)
    found.attrs.update(tree.attrs)
    return found


def evenly(count: int, most: int) -> list[int]:
    """Choose evenly spaced positions that include the first and the last.

    >>> evenly(100, 4), evenly(3, 4)
    ([0, 33, 66, 99], [0, 1, 2])
    """
    return [int(place) for place in np.linspace(0, count - 1, min(count, most)).round()]


def reads_many_steps(leaf: xr.Dataset) -> bool:
    """Whether the output gradient of a layer is not 0 at several valid steps of a sample."""
    steps = steps_read(leaf)
    return steps is not None and bool((steps.sum("time") > 1).any())


def steps_read(leaf: xr.Dataset) -> xr.DataArray | None:
    """Whether the loss reads the output of a layer at each valid step; None without outputs of steps."""
    asked = leaf.get("output_gradient")
    if asked is None or not {"sample", "time"} <= {*asked.dims}:
        return None
    others = [dim for dim in asked.dims if dim not in ("sample", "time")]
    return (asked != 0).any(others) & leaf.get("valid", True)
