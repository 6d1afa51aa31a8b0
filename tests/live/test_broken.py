"""What is not finite on the live page, and what is masked."""

from __future__ import annotations

import numpy as np

from throughtime._pages.live.evolution import _BROKEN, _logs
from throughtime._pages.live.panels import LayerPanels
from throughtime._pages.live.records import Rows, View
from throughtime.picture._drawing.theme import Theme
from throughtime.picture._render.page import on_page


def test_a_step_that_was_a_number_before_is_broken_and_one_that_never_was_is_masked():
    curves = np.array([[np.nan, 0.1, 0.01], [np.nan, np.nan, 0.01], [np.nan, np.inf, 0.01]])
    logs = _logs(curves, np.zeros(3))
    np.testing.assert_allclose(logs, [[np.nan, -1, -2], [np.nan, _BROKEN, -2], [np.nan, _BROKEN, -2]])
    assert (_logs(curves, np.array([0.0, 0.0, np.nan]))[2, :2] == _BROKEN).all()


def test_a_last_step_that_is_broken_now_is_not_masked_on_a_page_that_is_open():
    curves = np.array([[np.nan, 0.1, 0.25], [np.nan, 0.1, np.nan]])  # the first step is padding

    def shown(*parts: slice) -> str:
        panels = LayerPanels(on_page(Theme()))
        panels.choose(View("rnn", "", "hidden_gradient"))
        for part in parts:
            norms = np.repeat(curves[part, None], 5, axis=1)
            steps = np.arange(2)[part]
            rows = Rows(steps, np.ones(len(steps)), norms, np.full((len(steps), 0), np.nan))
            panels.add(steps.astype(float), int(steps[-1]) + 1, ([*steps], rows, {}))
        panels.tabulate(2, 1)
        return panels._numbers.text

    followed, reloaded = shown(slice(0, 1), slice(1, 2)), shown(slice(0, 2))
    assert followed == reloaded
    assert "last timestep</dt><dd>NaN" in followed
    assert "first timestep</dt><dd>0.1" in followed
