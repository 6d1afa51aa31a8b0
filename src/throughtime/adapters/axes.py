"""Names of the axes of states, inputs and outputs that have others than the schema says."""

from __future__ import annotations

AXES = ("unit", "row", "column", "depth")


def of_state(name: str, own: tuple[int, ...], first: tuple[int, ...]) -> dict[str, tuple[str, ...]]:
    """Name the axes of a state and its gradient where they are not (unit), or not those of the first state.

    Parameters
    ----------
    name : str
    own, first : tuple of int
        Shapes of this state and of the first one, without sample and time.

    Examples
    --------
    >>> of_state("hidden", (8,), (8,)), of_state("memory", (2, 3), (8,))["initial_memory"]
    ({}, ('sample', 'memory_unit', 'memory_row'))
    """
    if len(own) == 1 and own == first:
        return {}
    prefix = "" if own == first else f"{name}_"
    axes = tuple(f"{prefix}{axis}" for axis in AXES[: len(own)])
    of_steps = dict.fromkeys((name, f"{name}_gradient"), ("sample", "time", *axes))
    return of_steps | {f"initial_{each}": ("sample", *axes) for each in of_steps}


def of_series(name: str, last: str, rank: int) -> dict[str, tuple[str, ...]]:
    """Name the axes of an input or output, and its gradient, that has more than (sample, time, `last`).

    Examples
    --------
    >>> of_series("input", "feature", 4)["input_gradient"]
    ('sample', 'time', 'feature', 'input_row')
    """
    if rank <= 3:
        return {}
    axes = ("sample", "time", last, *(f"{name}_{axis}" for axis in AXES[1 : rank - 2]))
    return dict.fromkeys((name, f"{name}_gradient"), axes)
