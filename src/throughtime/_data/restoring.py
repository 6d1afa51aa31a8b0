"""Restores state, even if an interrupt arrives between any two lines, including those that restore it.

All state is stored before anything changes. Each piece is restored by a function that may run again from its
beginning.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

Restorer = Callable[[], object]


class Restored:
    """A context that calls functions on exit, the last one first, each until it has completed.

    Each may run several times, and restores the state at the time of its creation. If it is entered twice,
    `with kept, kept:`, it survives an interrupt during its own exit: the outer exit completes what the inner
    one has not done.

    Examples
    --------
    >>> numbers = [1]
    >>> kept = Restored([lambda: numbers.__setitem__(slice(None), [1])])
    >>> with kept, kept:
    ...     numbers.append(2)
    >>> numbers
    [1]
    """

    # A generator would not do: if an interrupt suspends it, it ends only when it is garbage-collected.
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
            except KeyboardInterrupt as interrupt:  # repeat this function
                raised = interrupt
            except Exception as error:  # continue with the others
                self._left.pop()
                raised = raised or error
        if raised is not None:
            raise raised
