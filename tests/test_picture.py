"""Marks and pictures made by hand: what they are made of is checked, so that drawing does not fail."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import throughtime as tt
from throughtime import plots, testing
from throughtime.picture import Axis, Band, Dots, Image, Line, Panel, Picture, Rectangles, Slider, Text

X, COLORS = np.arange(3.0), plots.heatmap(testing.decaying()).marks(Image)[0].colors
BOX = {"x": (0.0, 3.0), "y": (0.0, 2.0), "colors": COLORS}


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Line(X, X[:2]), "x 3, y 2"),
        (lambda: Line(X, X[None, None]), "y=.*1 or 2 axes"),
        (lambda: Line(X, X.astype(str)), "real numbers"),
        (lambda: Line(X, X, color="nocolour"), "a colour"),
        (lambda: Line(X, X, alpha=2), "from 0 to 1"),
        (lambda: Line(X, X, details=(("value", X[:1]),)), "value of details 1"),
        (lambda: Line(X, X, details=3), "pairs of a name and an array"),
        (lambda: Band(X, X, X[:1]), "low 3, high 1"),
        (lambda: Dots(X, X[:2]), "x 3, y 2"),
        (lambda: Dots(X, X, marker="heart"), "one of o, X"),
        (lambda: Rectangles(np.ones((2, 3))), "left, bottom, right and top"),
        (lambda: Text(X, X, ("a", "b")), "words 2"),
        (lambda: Text(X, X, ("a", "b", "c"), anchor="centre"), "one of bottom"),
        (lambda: Image(np.ones(3), **BOX), "2 or 3 axes"),
        (lambda: Image(np.ones((2, 0)), **BOX), "not empty"),
        (lambda: Image(np.ones((2, 3)), **{**BOX, "y": (1, 1)}), "a box with an area"),
        (lambda: Image(np.ones((2, 3)), **{**BOX, "colors": "viridis"}), "a Colors"),
        (lambda: Image(np.ones((2, 3)), **BOX, valid=np.ones((3, 2), bool)), r"valid has shape \(3, 2\)"),
        (lambda: Image(np.ones((2, 3)), **BOX, rows=np.arange(3)), "2 rows and 3 labels"),
        (lambda: Axis("time", (0.0, np.inf)), "limits="),
        (lambda: Axis("time", (1.0, 1.0)), "two finite numbers that differ"),
        (lambda: Axis(ticks=("a", "b")), "a position and a word"),
        (lambda: Panel((3,)), "marks: Image, Line"),
        (lambda: Panel((Line(X, X),), x="time"), "expected an? Axis"),
        (lambda: Picture(()), "at least one Panel"),
        (lambda: Picture((Line(X, X),)), "expected a?.*Panel"),
        (lambda: Picture((Panel(()),), columns=0), "columns=0"),
        (lambda: Picture((Panel(()),), width=-1.0), "width=-1.0"),
        (lambda: Picture((Panel(()),), width=1e-320), "width=1e-320"),
        (lambda: Picture((Panel(()),), linked="z"), "linked='z'"),
        (lambda: Picture((Panel(()),), heights=(1.0, 2.0)), "expected 1"),
        (lambda: Picture((Panel(()),), shown=1), "1 frames"),
        (lambda: Picture((Panel((Line(X, np.ones((4, 3))),)),)), r"\[4\] frames"),
    ],
)
def test_what_cannot_be_drawn_is_refused_when_it_is_made(make: Callable[[], Any], says: str) -> None:
    with pytest.raises(tt.PictureError, match=says):
        make()


def test_a_picture_of_every_mark_is_drawn_by_both_renderers() -> None:
    marks = (
        Image(np.ones((2, 2, 3)), **BOX, valid=np.ones((2, 3), bool), rows=np.array(["a", "b"])),
        Line([0, 1, 2], np.ones((2, 3)), color="navy", details=(("word", np.array(["a", "b", "c"])),)),
        Band(X, X, X + 1),
        Rectangles(np.array([[0.0, 0, 1, 1]]), fill="grey", label="box"),
        *(Dots(X, X, marker=marker) for marker in ("o", "X", "^", "v", "x")),
        *(Text(X, X, ("a", "b", "c"), anchor=anchor) for anchor in ("top", "middle left", "bottom right")),
    )
    picture = Picture((Panel(marks),), sliders=(Slider("step", ("0", "10")),), shown=np.int64(1))
    assert marks[1].color == "#000080"
    assert picture._repr_png_()[0].startswith(b"\x89PNG")
    assert picture.to_bokeh() is not None


@pytest.mark.parametrize("anchor", ["bottom", "top left", "middle right"])
def test_nothing_is_a_line_of_no_points(anchor: str) -> None:
    empty = np.empty(0)
    picture = Picture((Panel((Line(empty, empty), Text(empty, empty, (), anchor=anchor))),))
    assert picture._repr_png_()[0].startswith(b"\x89PNG")
