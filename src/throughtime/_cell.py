"""A cell of one's own: the names of its states and gates, and the mathematics of one step in NumPy.

This is the whole protocol. `_cell_registry` knows which layers compute which cell, and `cells.own` runs it
over time, masks and directions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from throughtime._errors import CellError
from throughtime._vocabulary import KINDS, RESERVED

Floats = npt.NDArray[np.floating[Any]]
Arrays = Mapping[str, Floats]
Given = Mapping[str, Any]  # weights by the variables' names, settings by the attributes'
Pair = tuple[Floats, Floats]
WeightGradient = Floats | Pair | list[Pair]

Replay = Callable[[Given, Floats, Arrays], tuple[Arrays, Arrays]]
Adjoint = Callable[[Given, Floats, Arrays, Arrays], "StepAdjoint"]
Jacobian = Callable[[Given, Floats, Arrays], Floats]

HIDDEN = "hidden"
# Names of the tree's attributes and of what a layer tells anyway.
_ATTRIBUTES = frozenset(
    {"kind", "layer", "states", "weights", "dtype", "trainable", "merge_mode", "output_reversed"}
)


@dataclass(frozen=True, kw_only=True)
class StepAdjoint:
    """What the adjoint of one step gives back: dL/d of everything that the step reads.

    Parameters
    ----------
    inputs : ndarray (sample, feature)
    states : mapping of str to ndarray (sample, width)
        dL/d(state before the step), for each state.
    gates : mapping of str to ndarray (sample, unit)
        dL/dz before the activation of each gate, for each gate that the cell names.
    weights : mapping of str to ndarray (sample, …), a pair of ndarrays, or a list of pairs
        Each sample's share of dL/dW, with the weight's own axes after `sample`. A pair
        ((sample, rows), (sample, columns)) stands for the outer product of its members, which is then never
        formed; a list for products whose columns stand side by side, a gate's each. Weights that are left
        out are not part of the certificate.
    totals : mapping of str to ndarray (sample, width)
        For a state beyond `hidden` that the hidden state follows within the step, such as an LSTM's c_t:
        its total derivative, that path included. The default is what the next step sent back.

    Examples
    --------
    >>> import numpy as np
    >>> x, dz = np.ones((4, 2)), np.ones((4, 3))
    >>> back = StepAdjoint(inputs=dz @ np.ones((3, 2)), states={"hidden": dz}, weights={"kernel": (x, dz)})
    >>> back.gates
    {}
    """

    inputs: Floats
    states: Arrays
    gates: Arrays = field(default_factory=dict)
    weights: Mapping[str, WeightGradient] = field(default_factory=dict)
    totals: Arrays = field(default_factory=dict)


def _not_given(*_: Any) -> Any:
    """Stand for a function that nobody passed."""
    raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class Cell:
    """The mathematics of one step of a recurrent cell, in NumPy, with a name for everything in it.

    Every function is given float64 arrays of one step, sample first, and knows neither time order nor masks.

    Parameters
    ----------
    name : str
        What the tree calls the layer's `kind`, in snake case.
    replay : callable (weights, inputs, states) -> (states, gates)
        The step forward: the states after it, and the activated gates (sample, unit), both as dicts. The
        hidden state before each step is the one that the layer emitted; only further states are replayed.
    adjoint : callable (weights, inputs, states, gradients) -> StepAdjoint
        The step back: `states` are those before the step, `gradients` holds dL/d(state after the step) of
        each, the states taken as independent variables.
    jacobian : callable (weights, inputs, states) -> ndarray (sample, state, state), optional
        d(states after) / d(states before), rows new, columns old, the states one after another. Lyapunov
        exponents need it; nothing else does.
    states : tuple of str
        In the order of the layer's `state_size`. The first is `hidden`, which the layer emits.
    gates : tuple of str
        In the order in which the tree shall have them. `candidate` is taken to have the range of the
        cell's `activation`, all others that of its `recurrent_activation`, sigmoid if it has none.
    recurrent_weight : str, optional
        The weight whose gradient `step_contribution` measures.
    settings : tuple of str
        Attributes of the layer's cell, numbers, strings or functions with a name, that the mathematics reads
        from `weights` by their names: a constant rate, an activation.

    Raises
    ------
    CellError
        A function is missing, or a name has another meaning in the tree.

    Examples
    --------
    A decaying memory, h_t = x_t W + d ⊙ h_{t−1}:

    >>> def replay(weights, inputs, states):
    ...     return {"hidden": inputs @ weights["kernel"] + weights["decay"] * states["hidden"]}, {}
    >>> def adjoint(weights, inputs, states, gradients):
    ...     dh = gradients["hidden"]
    ...     return StepAdjoint(
    ...         inputs=dh @ weights["kernel"].T,
    ...         states={"hidden": weights["decay"] * dh},
    ...         weights={"kernel": (inputs, dh), "decay": states["hidden"] * dh},
    ...     )
    >>> Cell(name="decay", replay=replay, adjoint=adjoint, recurrent_weight="decay").states
    ('hidden',)
    """

    name: str
    replay: Replay = _not_given
    adjoint: Adjoint = _not_given
    jacobian: Jacobian | None = None
    states: tuple[str, ...] = (HIDDEN,)
    gates: tuple[str, ...] = ()
    recurrent_weight: str | None = None
    settings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _check_kind(self.name)
        _check_functions(self)
        for what in ("states", "gates", "settings"):
            _check_names(self, what)
        if self.states[:1] != (HIDDEN,):
            raise CellError(
                f"The states of cell {self.name!r} are {self.states}. The first is {HIDDEN!r}, the one that "
                "the layer emits; put it first, in the layer's state_size and output as well."
            )
        for state in self.states[1:]:
            if state != "cell":  # the schema's own word for such a state
                _check_free(self, "state", state, RESERVED)
        for setting in self.settings:
            _check_free(self, "setting", setting, _ATTRIBUTES)


def _check_kind(name: Any) -> None:
    if not isinstance(name, str) or not name.isidentifier():
        raise CellError(f"A cell's name is a word in snake case, such as 'minimal_gated_unit'; got {name!r}.")
    if name in KINDS:
        raise CellError(
            f"The name {name!r} stands for a kind that throughtime knows by itself, as do "
            f"{', '.join(KINDS)}. Give the cell a name of its own, such as 'my_{name}'."
        )


def _check_functions(cell: Cell) -> None:
    needed = {
        "replay": "(weights, inputs, states) -> (states, gates), one step forward",
        "adjoint": "(weights, inputs, states, gradients) -> StepAdjoint, one step back",
    }
    for name, meaning in needed.items():
        if getattr(cell, name) is _not_given or not callable(getattr(cell, name)):
            raise CellError(
                f"Cell {cell.name!r} has no {name}: pass {name}=, a function {meaning}. "
                "tt.testing.check_cell compares the adjoint with finite differences of the replay."
            )
    if cell.jacobian is not None and not callable(cell.jacobian):
        raise CellError(
            f"The jacobian of cell {cell.name!r} is a {type(cell.jacobian).__name__}: pass a function "
            "(weights, inputs, states) -> ndarray (sample, state, state), or leave it out."
        )


def _check_names(cell: Cell, what: str) -> None:
    names = getattr(cell, what)
    words = isinstance(names, tuple) and all(isinstance(name, str) and name.isidentifier() for name in names)
    if not words or len(set(names)) < len(names):
        raise CellError(
            f"{what} of cell {cell.name!r} is {names!r}; expected a tuple of different words in snake case, "
            "such as ('forget', 'candidate')."
        )


def _check_free(cell: Cell, what: str, name: str, taken: frozenset[str]) -> None:
    forms = [name, f"{name}_gradient", f"initial_{name}_gradient"] if what == "state" else [name]
    plain = name.removeprefix("missing_").removeprefix("initial_").removesuffix("_gradient")
    clash = next((form for form in forms if form in taken), None if plain == name else name)
    if clash is not None:
        raise CellError(
            f"The {what} {name!r} of cell {cell.name!r} clashes with {clash!r}, which has a meaning of its "
            f"own in a tree. Choose another name, such as 'own_{plain}'."
        )
