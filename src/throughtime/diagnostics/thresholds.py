"""Every threshold that alarms, verdicts, the live page and reports judge by, with its name. Numbers only.

`diagnostics.rules` holds the tests that use them.
"""

from __future__ import annotations

from typing import Final

REACHES: Final = 0.01  # gradient at a lag, as a share of that at lag 0, from which on it counts as arriving
USED: Final = 0.01  # rise of the loss without old inputs, as a share of its rise without any
SHARE: Final = 0.01  # of the step contributions that come from a lag and beyond

GROWS: Final = 10.0  # largest gradient within the window, times that at lag 0
THROWN: Final = 0.2  # change of the recurrent weights by one step of the optimizer, times their norm
WORSE: Final = 3.0  # loss, times the one it is compared with, from which on training has come undone
FALLING: Final = 0.98  # loss, times that of the first record, below which training goes on

GATE_LOW, GATE_HIGH = 0.1, 0.9  # ends of a gate's range, in parts of it
SATURATED: Final = 0.9  # share of a gate's values at one end

ROUNDING: Final = 1e-12  # relative: a number that equals a threshold has reached it
