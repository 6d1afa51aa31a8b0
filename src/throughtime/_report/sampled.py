"""The samples and training steps of the sliders in a report."""

from __future__ import annotations

import xarray as xr

from throughtime._tree import evenly

MOST_STEPS = 6


def most_samples(dataset: xr.Dataset) -> int:
    """Return the largest number of samples of a slider, fewer if training steps have one too."""
    return 6 if dataset.sizes.get("step", 1) > 1 else 16


def few(dataset: xr.Dataset) -> xr.Dataset:
    """Choose samples and steps evenly, including the first and the last; each keeps its number."""
    for dim, most in (("sample", most_samples(dataset)), ("step", MOST_STEPS)):
        total = dataset.sizes.get(dim, 0)
        if total > most:
            places = evenly(total, most)
            dataset = dataset.isel({dim: places})
            dataset = dataset if dim in dataset.coords else dataset.assign_coords({dim: places})
    return dataset


def sampled(tree: xr.DataTree) -> tuple[str, ...]:
    """Describe what sliders leave out."""
    found = []
    leaves = [node.to_dataset() for node in tree.leaves if any(map(_is_slid, node.data_vars.values()))]
    if not leaves:
        return ()
    for dim, noun in (("sample", "samples"), ("step", "training steps")):
        total = max(leaf.sizes.get(dim, 0) for leaf in leaves)
        shown = max(few(leaf).sizes.get(dim, 0) for leaf in leaves)
        if shown < total:
            found.append(f"Sliders step through {shown} of {total} {noun}, chosen evenly.")
    return tuple(found)


def _is_slid(values: xr.DataArray) -> bool:
    """Whether a variable has sliders; a run that keeps only norms has none."""
    return {"sample", "time"} < set(values.dims)
