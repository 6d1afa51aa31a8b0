"""The plots of a report: all of `plots` for which a layer has the data, and reasons for the others.

The first few are open when a layer is unfolded. Plots of several quantities of one kind share a place.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import xarray as xr

from throughtime import plots
from throughtime._errors import ThroughTimeError
from throughtime._tree import evenly, keeps_norms, state_gradients
from throughtime._tree import layer as one_layer
from throughtime._vocabulary import WEIGHTS
from throughtime.picture import Picture
from throughtime.plots.data import last_step

MOST_STEPS = 6  # of a slider
Named = tuple[str, Picture]
Figure = tuple[str, tuple[Named, ...]]
_Draw = tuple[str, Callable[[], Picture]]


def of_model(tree: xr.DataTree) -> Iterator[Figure]:
    """Yield the plots of the whole model."""
    candidates: list[_Draw] = [
        ("Gradient flow", lambda: plots.gradient_flow(tree)),
        ("Gradients by layer", lambda: plots.histogram(tree, _gradient_of_all(tree), by="layer")),
    ]
    for name, draw in candidates:
        if drawn := _drawn([(name, draw)], []):
            yield name, drawn


def _gradient_of_all(tree: xr.DataTree) -> str:
    leaves = [node for node in tree.leaves if node.data_vars]
    return "hidden_gradient" if all("hidden_gradient" in leaf for leaf in leaves) else "output_gradient"


def of_layer(node: xr.DataTree, training: xr.Dataset | None) -> tuple[list[Figure], tuple[str, ...]]:
    """Return the figures of a layer, the most informative first, and a sentence for each that is impossible.

    `training` is the layer in a run, whose evolution is drawn.
    """
    leaf = node.to_dataset()
    last, slides = last_step(leaf).load(), few(leaf).load()
    tree, steps = (xr.DataTree.from_dict({node.path: each}) for each in (last, slides))
    run = None if training is None else xr.DataTree.from_dict({node.path: training})
    figures: list[Figure] = []
    left_out: list[str] = []
    for name, candidates in _candidates(tree, steps, run):
        if drawn := _drawn(candidates, left_out):
            figures.append((name, drawn))
    return figures, tuple(left_out)


def _drawn(candidates: Sequence[_Draw], left_out: list[str]) -> tuple[Named, ...]:
    drawn = []
    for name, draw in candidates:
        try:
            drawn.append((name, draw()))
        except ThroughTimeError as error:
            left_out.append(f"{name}: {error}")
    return tuple(drawn)


def _candidates(
    tree: xr.DataTree, slides: xr.DataTree, run: xr.DataTree | None
) -> Iterator[tuple[str, list[_Draw]]]:
    leaf = one_layer(slides)
    yield "Units over time", list(_heatmaps(tree, slides))
    if run is not None:
        yield "While training", list(_over_training(run))
    if "hidden" not in leaf:
        return
    if "gate_activation" in leaf:
        yield "Gates", [("Gates", lambda: plots.gates(tree))]
    yield "Step contributions", [("Step contributions", lambda: plots.contributions(tree))]
    if "lag_matrix" in leaf:
        yield "Lag matrix", [("Lag matrix", lambda: plots.lag_matrix(tree))]
    yield "Lines", [("Lines of the hidden gradient", lambda: plots.lines(tree, "hidden_gradient"))]
    if "step" in leaf.dims:
        yield "Distribution", [("Distribution while training", lambda: plots.histogram(slides, by="step"))]
    yield "Weights", list(_of_weights(tree, leaf))
    yield "Spectrum", [("Spectrum", lambda: plots.spectrum(tree))]


def _heatmaps(tree: xr.DataTree, slides: xr.DataTree) -> Iterator[_Draw]:
    leaf = one_layer(slides)
    sliders = ("sample",) if leaf.sizes.get("sample", 0) > 1 else ()
    names = state_gradients(leaf)
    gradient = leaf.get("output_gradient")
    is_timed = gradient is not None and "time" in gradient.dims
    names += ["output_gradient"] if is_timed else []
    for name in (*names, "hidden"):
        if name in leaf:
            yield _words(name), partial(plots.heatmap, slides, name, sliders=sliders)
    if gradient is not None and not is_timed:
        yield "Output gradient", lambda: plots.scatter(tree)


def _of_weights(tree: xr.DataTree, leaf: xr.Dataset) -> Iterator[_Draw]:
    if any(name in leaf for name in WEIGHTS):
        yield "Weights", lambda: plots.weights(tree)
    if any(f"{name}_gradient" in leaf for name in WEIGHTS):
        yield "Weight gradients", lambda: plots.weights(tree, gradient=True)


def _over_training(run: xr.DataTree) -> Iterator[_Draw]:
    leaf = one_layer(run)
    if "lag_ratio" in leaf:
        yield "Reach by lag", partial(plots.evolution, run, "lag_ratio")
    for quantity in (*state_gradients(leaf), "output_gradient"):
        if any("time" in leaf[name].dims for name in (quantity, f"{quantity}_norm") if name in leaf):
            yield _words(quantity), partial(plots.evolution, run, quantity)
    if keeps_norms(leaf):
        yield "Weights", partial(plots.weights, run)


def _words(name: str) -> str:
    return {"hidden": "Hidden state"}.get(name) or name.replace("_", " ").capitalize()


def few(dataset: xr.Dataset) -> xr.Dataset:
    """Choose samples and steps evenly, including the first and the last; each keeps its number."""
    most_samples = 6 if dataset.sizes.get("step", 1) > 1 else 16
    for dim, most in (("sample", most_samples), ("step", MOST_STEPS)):
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
