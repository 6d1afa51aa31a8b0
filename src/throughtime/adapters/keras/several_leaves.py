"""Splits the record of a layer that holds several cells: stacked ones, or two halves that differ.

The cells of one layer share a loop; each gets a leaf of its own, with the input and the output that pass
between them. Shared by the adapters of every Keras.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from throughtime.adapters.records import Array, Attribute, DirectionRecord, LayerRecord, SolvedRecord

from .dims import with_own_axes

Inside = DirectionRecord | SolvedRecord
_OUTSIDE = ("input", "input_gradient", "output", "output_gradient", "underflow", "valid")
_BETWEEN = "it passes between the cells of one layer; ask for hidden_gradient as well, without Bidirectional"


@dataclass(frozen=True)
class Part:
    """What is its own of one cell among several: its kind, its weights with their gradients, flags, states.

    `states` is empty where the schema has words for them.
    """

    kind: str
    arrays: Mapping[str, Array]
    flags: Mapping[str, Attribute]
    states: tuple[str, ...] = ()
    channels_first: bool = False


def stacked(
    whole: LayerRecord, parts: Sequence[Sequence[Part]], inside: Sequence[Sequence[Inside]]
) -> tuple[LayerRecord, ...]:
    """Make `rnn/0`, `rnn/1`, … of an RNN over stacked cells.

    Parameters
    ----------
    whole : the layer's record without its inside
    parts : for each cell its part of the layer, or of both layers of a Bidirectional
    inside : for each half its cells' records, none where nothing was looked into
    """
    return tuple(_stacked(whole, own, inside, place, len(parts)) for place, own in enumerate(parts))


def _stacked(
    whole: LayerRecord, halves: Sequence[Part], inside: Sequence[Sequence[Inside]], place: int, count: int
) -> LayerRecord:
    kept, missing = _outside(whole, inside, place, count)
    for name in halves[0].arrays:
        each = [half.arrays[name] for half in halves]
        kept[name] = each[0] if len(each) == 1 else np.stack(each)
    leaf = replace(
        whole,
        path=f"{whole.path}/{place}",
        kind=halves[0].kind,
        arrays=kept,
        directions=("forward", "backward") if len(halves) > 1 else (),
        flags={**whole.flags, **halves[0].flags},
        missing=missing,
        inside=tuple(records[place] for records in inside),
    )
    return with_own_axes(leaf, halves[0].states, channels_first=halves[0].channels_first)


def _outside(
    whole: LayerRecord, inside: Sequence[Sequence[Inside]], place: int, count: int
) -> tuple[dict[str, Array], dict[str, str]]:
    """Input and output of one cell: the layer's own at the ends, between them what the unrolling saw."""
    kept = {name: whole.arrays[name] for name in _OUTSIDE if name in whole.arrays}
    missing = {name: reason for name, reason in whole.missing.items() if name in (*_OUTSIDE, "inside")}
    if place + 1 < count:
        kept.pop("underflow", None)  # of the gradient of the layer's own output
    between = [("input", place)] * (place > 0) + [("output", place + 1)] * (place + 1 < count)
    for side, source in between:
        for suffix in ("", "_gradient"):
            name = side + suffix
            missing.pop(name, None)
            if kept.pop(name, None) is None and name not in whole.missing:
                continue
            record = inside[0][source] if len(inside) == 1 else None
            if isinstance(record, SolvedRecord) and f"input{suffix}" in record.arrays:
                kept[name] = record.arrays[f"input{suffix}"]
            else:
                missing[name] = _BETWEEN
    return kept, missing


def unlike_halves(
    whole: LayerRecord, halves: Sequence[Part], inside: Sequence[Sequence[Inside]]
) -> tuple[LayerRecord, ...]:
    """Make `both@forward` and `both@backward` of a Bidirectional over two different layers."""
    leaves = []
    valid = {"valid": whole.arrays["valid"]} if "valid" in whole.arrays else {}
    for name, half, records in zip(("forward", "backward"), halves, inside, strict=True):
        leaf = replace(
            whole,
            path=f"{whole.path}@{name}",
            kind=half.kind,
            arrays={**valid, **half.arrays},
            flags={**whole.flags, **half.flags},
            missing={},
            inside=tuple(records),
        )
        leaves.append(with_own_axes(leaf, half.states, channels_first=half.channels_first))
    return tuple(leaves)
