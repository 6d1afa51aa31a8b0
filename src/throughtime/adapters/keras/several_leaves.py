"""Splits the record of a layer that holds several cells: stacked ones, or two halves that differ.

The cells of one layer share a loop; each gets a leaf of its own, with the input and the output that pass
between them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from throughtime._record import Array, DirectionRecord, LayerRecord, SolvedRecord

from . import weights
from .cell import inner_cells
from .dims import with_own_axes
from .settings import of_cell as settings_of_cell

Inside = DirectionRecord | SolvedRecord
_OUTSIDE = ("input", "input_gradient", "output", "output_gradient", "underflow", "valid")
_BETWEEN = "it passes between the cells of one layer; ask for hidden_gradient as well, without Bidirectional"


def stacked(
    whole: LayerRecord, halves: Sequence[Any], inside: Sequence[Sequence[Inside]], own: weights.Readers
) -> tuple[LayerRecord, ...]:
    """Make `rnn/0`, `rnn/1`, … of an RNN over stacked cells.

    Parameters
    ----------
    whole : the layer's record without its inside
    halves : the layer, or both layers of a Bidirectional
    inside : for each half its cells' records, none where nothing was looked into
    own : readers of weights and their gradients, by the suffix of their names
    """
    count = len(inner_cells(halves[0].cell))
    return tuple(_stacked(whole, halves, inside, own, place, count) for place in range(count))


def _stacked(
    whole: LayerRecord,
    halves: Sequence[Any],
    inside: Sequence[Sequence[Inside]],
    own: weights.Readers,
    place: int,
    count: int,
) -> LayerRecord:
    cells = [inner_cells(half.cell)[place] for half in halves]
    of_place = tuple(records[place] for records in inside)
    kept, missing = _outside(whole, inside, place, count)
    for suffix, read in own.items():
        each = [weights.of_cell(cell, read, suffix) for cell in cells]
        for name in each[0]:
            kept[name] = each[0][name] if len(each) == 1 else np.stack([one[name] for one in each])
    leaf = replace(
        whole,
        path=f"{whole.path}/{place}",
        kind=weights.kind_of_cell(cells[0]),
        arrays=kept,
        directions=("forward", "backward") if len(halves) > 1 else (),
        flags={**whole.flags, **settings_of_cell(cells[0])},
        missing=missing,
        inside=of_place,
    )
    return with_own_axes(leaf, halves[0], cells[0])


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
    whole: LayerRecord, halves: Sequence[Any], inside: Sequence[Sequence[Inside]], own: weights.Readers
) -> tuple[LayerRecord, ...]:
    """Make `both@forward` and `both@backward` of a Bidirectional over two different layers."""
    leaves = []
    for name, half, records in zip(("forward", "backward"), halves, inside, strict=True):
        arrays = {"valid": whole.arrays["valid"]} if "valid" in whole.arrays else {}
        for suffix, read in own.items():
            arrays |= weights.named(half, read, suffix)
        leaf = replace(
            whole,
            path=f"{whole.path}@{name}",
            kind=weights.kind(half),
            arrays=arrays,
            flags={**whole.flags, **settings_of_cell(half.cell), "go_backwards": int(half.go_backwards)},
            missing={},
            inside=tuple(records),
        )
        leaves.append(with_own_axes(leaf, half))
    return tuple(leaves)
