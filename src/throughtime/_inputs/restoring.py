"""Restores state after a block, such as random generators, so that capturing does not change training."""

import random
import sys
from collections.abc import Callable, Sequence
from types import FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np

Restorer = Callable[[], object]
_DEPTH = 3  # nesting of the objects that hold a generator: loader, batch sampler, sampler


class Restored:
    """A context that calls functions on exit, the last one first, each until it has completed.

    Each may run several times, and restores the state at the time of its creation. If it is entered twice,
    `with kept, kept:`, it survives an interrupt during its own exit: the outer exit completes what the inner
    one has not done.

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


def random_states_restored(holder: Any = None) -> Restored:
    """Restore the generators of Python, NumPy and, if it is imported, torch after a block.

    Those in attributes of `holder`, a dataset, of its samplers and of its source are restored as well.
    """
    return Restored(random_state_restorers(holder))


def random_state_restorers(holder: Any = None) -> list[Restorer]:
    """Store those states; each returned function restores one."""
    return [_restorer(each) for each in (random, np.random, *_generators(holder))] + _torch_restorers()


def _torch_restorers() -> list[Restorer]:
    """Store the states of torch's default generators, for the CPU and for each GPU in use."""
    torch = sys.modules.get("torch")
    if torch is None:
        return []
    state = torch.random.get_rng_state()
    restorers: list[Restorer] = [lambda: torch.random.set_rng_state(state)]
    if torch.cuda.is_initialized():
        states = torch.cuda.get_rng_state_all()
        restorers.append(lambda: torch.cuda.set_rng_state_all(states))
    return restorers


def _restorer(generator: Any) -> Restorer:
    """Store a generator's state; the returned function restores it."""
    if hasattr(generator, "getstate"):  # random, random.Random
        state = generator.getstate()
        return lambda: generator.setstate(state)
    if hasattr(generator, "get_state"):  # numpy.random, RandomState, torch.Generator
        state = generator.get_state()
        return lambda: generator.set_state(state)
    bits = generator.bit_generator  # numpy.random.Generator
    state = bits.state

    def restore() -> None:
        bits.state = state

    return restore


def _generators(holder: Any) -> list[Any]:
    """Find the generators in the attributes of an object, and in the attributes of those."""
    found: dict[int, Any] = {}
    holders, seen = [holder] if _is_holder(holder) else [], set()
    for _ in range(_DEPTH):
        seen |= {id(each) for each in holders}
        values = [value for each in holders for value in vars(each).values()]
        found |= {id(value): value for value in values if _is_generator(value)}
        holders = [value for value in values if _is_holder(value) and id(value) not in seen]
    return list(found.values())


def _is_holder(value: Any) -> bool:
    code = (type, ModuleType, FunctionType, MethodType)
    return hasattr(value, "__dict__") and not isinstance(value, code)


def _is_generator(value: Any) -> bool:
    if isinstance(value, (random.Random, np.random.Generator, np.random.RandomState)):
        return True
    return type(value).__module__.partition(".")[0] == "torch" and type(value).__name__ == "Generator"
