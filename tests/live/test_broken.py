"""What is not finite on the live page, and what is masked."""

from __future__ import annotations

import numpy as np

from throughtime._pages.live.evolution import _BROKEN, _logs


def test_a_step_that_was_a_number_before_is_broken_and_one_that_never_was_is_masked():
    curves = np.array([[np.nan, 0.1, 0.01], [np.nan, np.nan, 0.01], [np.nan, np.inf, 0.01]])
    logs = _logs(curves, np.zeros(3))
    np.testing.assert_allclose(logs, [[np.nan, -1, -2], [np.nan, _BROKEN, -2], [np.nan, _BROKEN, -2]])
    assert (_logs(curves, np.array([0.0, 0.0, np.nan]))[2, :2] == _BROKEN).all()
