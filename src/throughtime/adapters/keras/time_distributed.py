"""Joins the calls that a TimeDistributed makes of one layer, one for each outer step, into one leaf.

Its samples are those of the outer batch, each with all its outer steps one after the other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from throughtime.adapters.records import Array, DirectionRecord, LayerRecord, SolvedRecord

# Arrays of a leaf that belong to the layer and not to a sample.
_PER_SAMPLE = ("input", "input_gradient", "output", "output_gradient", "valid")


def joined_over_outer_steps(steps: Sequence[LayerRecord]) -> LayerRecord:
    """Join one layer's records, one for each outer step."""
    first = steps[0]
    arrays = {
        name: _interleaved([step.arrays[name] for step in steps]) if name in _PER_SAMPLE else array
        for name, array in first.arrays.items()
    }
    if "underflow" in arrays:
        arrays["underflow"] = np.asarray(np.mean([step.arrays["underflow"] for step in steps]))
    inside = tuple(_joined(parts) for parts in zip(*(step.inside for step in steps), strict=True))
    return replace(first, arrays=arrays, inside=inside, outer_steps=first.outer_steps or len(steps))


def _interleaved(arrays: Sequence[Array | None]) -> Any:
    """(sample, …) of each outer step to (sample · outer step, …); None where every step has None."""
    known = [array for array in arrays if array is not None]
    if not known:
        return None
    filled = [np.zeros_like(known[0]) if array is None else array for array in arrays]
    stacked = np.stack(filled, axis=1)
    return stacked.reshape(-1, *stacked.shape[2:])


def _summed(mappings: Sequence[Mapping[str, Array]]) -> dict[str, Array]:
    names = {name for mapping in mappings for name in mapping}
    return {name: np.sum([m[name] for m in mappings if name in m], axis=0) for name in sorted(names)}


def _joined(steps: Sequence[DirectionRecord | SolvedRecord]) -> DirectionRecord | SolvedRecord:
    """Join the insides: samples side by side, each call's share of the weight gradients added."""
    first = steps[0]
    weight_gradients = _summed([step.weight_gradients for step in steps])
    if isinstance(first, SolvedRecord):
        return replace(
            first,
            arrays=_solved([step.arrays for step in steps], weight_gradients),  # type: ignore[union-attr]
            weight_gradients=weight_gradients,
            initial=_states([step.initial for step in steps]),
            **_each(steps, ("input_gradient", "hidden_before")),
        )
    return replace(
        first,
        weight_gradients=weight_gradients,
        initial=_states([step.initial for step in steps]),
        final_gradients=_states([step.final_gradients for step in steps]),  # type: ignore[union-attr]
        **_each(steps, ("inputs", "hidden", "output_gradient", "input_gradient", "valid")),
    )


def _states(steps: Sequence[tuple[Array | None, ...]]) -> tuple[Array | None, ...]:
    return tuple(_interleaved(states) for states in zip(*steps, strict=True))


def _solved(steps: Sequence[Mapping[str, Array]], weights: Mapping[str, Array]) -> dict[str, Array]:
    summed = _summed([{name: step[name] for name in step.keys() & weights.keys()} for step in steps])
    names = [name for name in steps[0] if name not in weights]
    return {**{name: _interleaved([step[name] for step in steps]) for name in names}, **summed}


def _each(steps: Sequence[Any], names: Sequence[str]) -> dict[str, Any]:
    return {name: _interleaved([getattr(step, name) for step in steps]) for name in names}
