"""Which pictures a report has: all of `plots` that a layer has the data for, and why not the others."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import xarray as xr

from throughtime import plots
from throughtime._errors import ThroughTimeError
from throughtime._report.sampled import few
from throughtime._schema import WEIGHTS, states
from throughtime.picture import Picture

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


def of_layer(node: xr.DataTree) -> tuple[list[Named], tuple[str, ...]]:
    """Give the pictures of a layer, and a sentence for each that could not be drawn."""
    leaf = node.to_dataset()
    alone, slides = (xr.DataTree.from_dict({node.path: each}) for each in (leaf, few(leaf)))
    drawn: list[Named] = []
    left_out: list[str] = []
    for name, draw in _candidates(alone, slides, leaf):
        try:
            drawn.append((name, draw()))
        except ThroughTimeError as error:
            left_out.append(f"{name}: {error}")
    return drawn, tuple(left_out)


def _candidates(
    tree: xr.DataTree, slides: xr.DataTree, leaf: xr.Dataset
) -> Iterator[tuple[str, Callable[[], Picture]]]:
    """List what may apply, in the order of reading: gradients, states, gates, weights, measures."""
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
    if "hidden" not in leaf:
        return
    yield "Lines of the hidden gradient", lambda: plots.lines(tree, "hidden_gradient")
    if "step" in leaf.dims:
        yield "Evolution while training", lambda: plots.evolution(tree)
        yield "Distribution while training", lambda: plots.histogram(tree, by="step")
    yield "Lag profile", lambda: plots.lag_profile(tree)
    if "lag_matrix" in leaf:
        yield "Lag matrix", lambda: plots.lag_matrix(tree)
    yield "Step contributions", lambda: plots.contributions(tree)
    yield "Hidden state", _heatmap(slides, "hidden", sliders)
    if "gate_activation" in leaf:
        yield "Gates", lambda: plots.gates(tree)
    if any(name in leaf for name in WEIGHTS):
        yield "Weights", lambda: plots.weights(tree)
    if any(f"{name}_gradient" in leaf for name in WEIGHTS):
        yield "Weight gradients", lambda: plots.weights(tree, gradient=True)
    yield "Spectrum", lambda: plots.spectrum(tree)


def _heatmap(tree: xr.DataTree, quantity: str, sliders: tuple[str, ...]) -> Callable[[], Picture]:
    return lambda: plots.heatmap(tree, quantity, sliders=sliders)


def _words(name: str) -> str:
    return name.replace("_", " ").capitalize()
