"""Puts things back, also when an interrupt comes between any two lines, those that put back among them.

Everything is remembered before anything changes, and each thing is put back by a function that may run again
from its beginning.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

Restorer = Callable[[], object]


class Restored:
    """A context that calls functions when it is left, the last one first, each until it has ended.

    Entered twice, `with kept, kept:`, it also stands an interrupt on its own way out: what the inner exit has
    left undone the outer one does.

    Parameters
    ----------
    restorers : sequence of callables
        Each may run several times and puts back what was there when it was made.

    Examples
    --------
    >>> numbers = [1]
    >>> kept = Restored([lambda: numbers.__setitem__(slice(None), [1])])
    >>> with kept, kept:
    ...     numbers.append(2)
    >>> numbers
    [1]
    """

    # No generator: one that an interrupt leaves suspended ends when it is collected, at any time later.
    def __init__(self, restorers: Sequence[Restorer]) -> None:
        self._left = list(restorers)

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        raised: BaseException | None = None
        while self._left:
            try:
                self._left[-1]()
                self._left.pop()
            except KeyboardInterrupt as interrupt:  # this one again
                raised = interrupt
            except Exception as error:  # and the others all the same
                self._left.pop()
                raised = raised or error
        if raised is not None:
            raise raised
