"""Parts of a run that a command needs: one layer, one variable, all arrays, its faults."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import xarray as xr

import throughtime as tt
from throughtime._errors import did_you_mean
from throughtime._store import damage
from throughtime.diagnostics.alarm import ATTRIBUTE
from throughtime.diagnostics.checks import why_refused


def layer_of(tree: xr.DataTree, path: str | None) -> xr.DataTree:
    leaves = {leaf.path.strip("/"): leaf for leaf in tree.leaves}
    if path is None and len(leaves) == 1:
        return next(iter(leaves.values()))
    if path is None or path not in leaves:
        raise tt.LayerNotFoundError(
            f"--layer is one of {', '.join(leaves)}.{did_you_mean(path, leaves) if path else ''}"
        )
    return leaves[path]


def quantity_of(layer: xr.DataTree, name: str) -> xr.DataArray:
    """Return one variable; for quantiles of norms the median."""
    if name not in layer.data_vars:
        has = ", ".join(map(str, layer.data_vars))
        raise tt.SchemaError(f"There is no {name}; it has {has}.{did_you_mean(name, layer.data_vars)}")
    array: xr.DataArray = layer[name]  # type: ignore[assignment]
    return array.sel(quantile=0.5, drop=True) if "quantile" in array.dims else array


def arrays(tree: xr.DataTree) -> Iterator[tuple[str, xr.DataArray]]:
    """Yield every variable by its path, and numbers of the training loop by name."""
    for node in tree.subtree:
        for name, array in node.data_vars.items():
            yield f"{node.path}/{name}".strip("/"), array


def attributes_of_run(tree: xr.DataTree) -> dict[str, Any]:
    """Return the attributes of a run, with lists and mappings read from JSON."""
    own = {str(name): value for name, value in tree.attrs.items() if name not in ("n_steps", ATTRIBUTE)}
    return {name: _read(value) for name, value in own.items()}


def _read(value: Any) -> Any:
    if not isinstance(value, str) or not value.startswith(("{", "[")):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


def in_words(value: Any) -> str:
    """Format a mapping or a list in one line."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {in_words(each)}" for name, each in value.items() if each is not None)
    if isinstance(value, list):
        between = " × " if value and isinstance(value[0], int) else "; "
        return between.join(map(in_words, value)) or "none"
    return str(value)


def complaints(run: Path) -> Iterator[str]:
    """Yield the faults: damaged files by variable and step, failed certificates, the first NaN."""
    is_damaged = False
    for found in damage(run):
        is_damaged = True
        yield found
    if is_damaged:
        return
    tree = tt.open_run(run)
    for leaf in tree.leaves:
        if leaf.data_vars and (reason := why_refused(leaf.to_dataset())):
            yield reason
    if (broken := tt.diagnostics.first_nonfinite(tree)) is not None:
        yield str(broken)
