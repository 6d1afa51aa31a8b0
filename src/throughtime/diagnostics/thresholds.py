"""The thresholds of alarms, verdicts, the live page and reports.

`diagnostics.rules` holds the tests that use them.
"""

from typing import Final

REACHES: Final = 0.01  # gradient at a lag relative to lag 0: from here on it reaches, below it vanishes
FAINT: Final = 0.1  # reach below which a verdict names what lets more gradient arrive
USED: Final = 0.01  # rise of the loss without old inputs, relative to its rise without any inputs
SHARE: Final = 0.01  # share of the step contributions that come from a lag and beyond

GROWS: Final = 10.0  # largest gradient in the window relative to that at lag 0
THROWN: Final = 0.2  # change of the recurrent weights in one optimizer step, relative to their norm
WORSE: Final = 3.0  # loss relative to the one it is compared with, from which on training has failed
FALLING: Final = 0.98  # loss relative to that of the first record, below which training makes progress

GATE_LOW, GATE_HIGH = 0.1, 0.9  # ends of a gate's range, as fractions of it
SATURATED: Final = 0.9  # share of a gate's values at one end
MOSTLY: Final = 0.5  # share of a forget gate's values at its open end, from which on its cells remember

ROUNDING: Final = 1e-12  # tolerance, relative or of logarithms: a number equal to a threshold has reached it
