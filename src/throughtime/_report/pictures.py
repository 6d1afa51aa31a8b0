"""Which pictures a report has: all of `plots` that a layer has the data for, and why not the others."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import xarray as xr

from throughtime import plots
from throughtime._errors import ThroughTimeError
from throughtime._report.sampled import few
from throughtime._tree import keeps_norms, states
from throughtime._tree import layer as one_layer
from throughtime._vocabulary import WEIGHTS
from throughtime.picture import Picture
from throughtime.plots.data import last_step

Named = tuple[str, Picture]


def of_model(tree: xr.DataTree) -> Iterator[Named]:
    """Give the pictures of the model as a whole."""
    candidates: list[tuple[str, Callable[[], Picture]]] = [
        ("Gradient flow", lambda: plots.gradient_flow(tree)),
        ("Gradients by layer", lambda: plots.histogram(tree, _gradient_of_all(tree), by="layer")),
    ]
    for name, draw in candidates:
        try:
            yield name, draw()
        except ThroughTimeError:
            continue


def _gradient_of_all(tree: xr.DataTree) -> str:
    leaves = [node for node in tree.leaves if node.data_vars]
    return "hidden_gradient" if all("hidden_gradient" in leaf for leaf in leaves) else "output_gradient"


def of_layer(node: xr.DataTree, training: xr.Dataset | None) -> tuple[list[Named], tuple[str, ...]]:
    """Give the pictures of a layer, and a sentence for each that could not be drawn.

    `training` is the layer in a run, whose evolution is drawn.
    """
    leaf = node.to_dataset()
    last, slides = last_step(leaf).load(), few(leaf).load()
    drawn: list[Named] = []
    left_out: list[str] = []
    tree, steps = (xr.DataTree.from_dict({node.path: each}) for each in (last, slides))
    run = None if training is None else xr.DataTree.from_dict({node.path: training})
    for name, draw in _candidates(tree, steps, run):
        try:
            drawn.append((name, draw()))
        except ThroughTimeError as error:
            left_out.append(f"{name}: {error}")
    return drawn, tuple(left_out)


def _candidates(
    tree: xr.DataTree, slides: xr.DataTree, run: xr.DataTree | None
) -> Iterator[tuple[str, Callable[[], Picture]]]:
    """List what may apply, in the order of reading: gradients, states, gates, weights, measures."""
    leaf = one_layer(slides)
    sliders = ("sample",) if leaf.sizes.get("sample", 0) > 1 else ()
    for state in states(leaf):
        if f"{state}_gradient" in leaf:
            yield _words(f"{state}_gradient"), _heatmap(slides, f"{state}_gradient", sliders)
    gradient = leaf.get("output_gradient")
    if gradient is not None:
        timed = "time" in gradient.dims
        yield (
            "Output gradient",
            (_heatmap(slides, "output_gradient", sliders) if timed else lambda: plots.scatter(tree)),
        )
    if run is not None:
        yield from _over_training(run)
    if "hidden" not in leaf:
        return
    yield "Lines of the hidden gradient", lambda: plots.lines(tree, "hidden_gradient")
    if "step" in leaf.dims:
        yield "Distribution while training", lambda: plots.histogram(slides, by="step")
    yield "Lag profile", lambda: plots.lag_profile(tree)
    if "lag_matrix" in leaf:
        yield "Lag matrix", lambda: plots.lag_matrix(tree)
    yield "Step contributions", lambda: plots.contributions(tree)
    yield "Hidden state", _heatmap(slides, "hidden", sliders)
    yield from _of_weights(tree, leaf)
    yield "Spectrum", lambda: plots.spectrum(tree)


def _of_weights(tree: xr.DataTree, leaf: xr.Dataset) -> Iterator[tuple[str, Callable[[], Picture]]]:
    if "gate_activation" in leaf:
        yield "Gates", lambda: plots.gates(tree)
    if any(name in leaf for name in WEIGHTS):
        yield "Weights", lambda: plots.weights(tree)
    if any(f"{name}_gradient" in leaf for name in WEIGHTS):
        yield "Weight gradients", lambda: plots.weights(tree, gradient=True)


def _over_training(run: xr.DataTree) -> Iterator[tuple[str, Callable[[], Picture]]]:
    leaf = one_layer(run)
    for quantity in (*(f"{state}_gradient" for state in states(leaf)), "output_gradient"):
        if any("time" in leaf[name].dims for name in (quantity, f"{quantity}_norm") if name in leaf):
            yield f"{_words(quantity)} while training", partial(plots.evolution, run, quantity)
    if "lag_ratio" in leaf:
        yield "Signal by lag while training", partial(plots.evolution, run, "lag_ratio")
    if keeps_norms(leaf):
        yield "Weights while training", partial(plots.weights, run)


def _heatmap(tree: xr.DataTree, quantity: str, sliders: tuple[str, ...]) -> Callable[[], Picture]:
    return lambda: plots.heatmap(tree, quantity, sliders=sliders)


def _words(name: str) -> str:
    return name.replace("_", " ").capitalize()
