"""Edges that no gradient crosses are drawn where a state was detached, and nowhere else."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import xarray as xr

import throughtime as tt
from throughtime.diagnostics.lags import edges
from throughtime.picture import Image, Line

SAMPLES, STEPS, UNITS = 3, 12, 4


def layer(cut: tuple[int, ...] = (), reset: tuple[tuple[int, int], ...] = (), base: float = 0.9) -> Any:
    """A gradient of 1 at the end of each window, which fades by `base` a step; nothing crosses a cut."""
    lag = np.array([min([c for c in (*cut, STEPS) if c > t]) - 1 - t for t in range(STEPS)])
    gradient = np.broadcast_to((base ** lag[None, :, None]).astype("f4"), (SAMPLES, STEPS, UNITS))
    carried = gradient[..., 0].copy()
    carried[:, [*(c - 1 for c in cut), STEPS - 1]] = 0
    was_reset = np.zeros((SAMPLES, STEPS), bool)
    for sample, time in reset:
        was_reset[sample, time], carried[sample, time - 1] = True, 0
    dims = ("sample", "time")
    variables = {"carried_gradient": (dims, carried), "reset": (dims, was_reset)}
    return xr.Dataset({"hidden_gradient": ((*dims, "unit"), gradient), **variables}, attrs={"kind": "gru"})


@pytest.mark.parametrize("cut", [(), (4,), (3, 8)])
def test_edges_are_where_nothing_goes_back(cut: tuple[int, ...]) -> None:
    assert list(edges(layer(cut))) == list(cut)


def test_resets_and_a_gradient_that_has_faded_are_no_edges() -> None:
    assert list(edges(layer(reset=((0, 5), (1, 5), (2, 5))))) == []
    assert list(edges(layer(reset=((0, 5),), cut=(4,)))) == [4]
    faded = layer(base=1e-10)
    assert not faded["hidden_gradient"][:, 0].any()
    assert list(edges(faded)) == []


@pytest.mark.parametrize("samples", [1, SAMPLES])
def test_a_heatmap_has_a_line_before_each_step_after_an_edge(samples: int) -> None:
    picture = tt.plots.heatmap(layer((3, 8)).isel(sample=slice(samples)))
    (panel,) = picture.panels
    images = panel.of(Image)
    (line,) = panel.of(Line)
    assert len(images) == samples
    wanted = [one.x[0] + (one.x[1] - one.x[0]) * step / STEPS for one in images for step in (3, 8)]
    np.testing.assert_allclose(line.x[::3], wanted)
    assert "no gradient goes back" in picture.note
    plain = tt.plots.heatmap(layer().isel(sample=slice(samples)))
    assert not plain.panels[0].of(Line)
    assert "no gradient" not in plain.note


def test_lines_draw_and_label_the_edges() -> None:
    picture = tt.plots.lines(layer((3, 8)).isel(unit=[0]))
    (line,) = [one for one in picture.panels[0].of(Line) if one.label == "no gradient goes back from here"]
    np.testing.assert_allclose(line.x[::3], [2.5, 7.5])


def test_gradient_flow_has_the_edges() -> None:
    (panel,) = tt.plots.gradient_flow(layer((3, 8))).panels
    line = next(one for one in panel.of(Line) if one.dashed)
    np.testing.assert_allclose(line.x[::3], [2.5, 7.5])
    assert not any(one.dashed for one in tt.plots.gradient_flow(layer()).panels[0].of(Line))
