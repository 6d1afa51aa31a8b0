"""The vocabulary: dimensions, variables, gate names and their order.

All code after the adapters uses only these names; `VARIABLES` has the meaning of each name in a tree.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from throughtime._errors import SchemaError, did_you_mean

GATES: Mapping[str, tuple[str, ...]] = {
    "lstm": ("input", "forget", "candidate", "output"),
    "gru": ("update", "reset", "candidate"),
    "conv_lstm": ("input", "forget", "candidate", "output"),
}
DIRECTIONS = ("forward", "backward")
CLASSES = {"lstm": "LSTM", "gru": "GRU", "simple_rnn": "SimpleRNN", "conv_lstm": "ConvLSTM"}
STANDARD_KINDS = ("lstm", "gru", "simple_rnn")
KINDS = (*STANDARD_KINDS, "conv_lstm", "rnn")  # kinds of recurrent layers without a custom cell


@dataclass(frozen=True)
class Variable:
    """One word of the vocabulary: its dims, as far as they apply, its symbol and its meaning."""

    dims: tuple[str, ...]
    symbol: str
    meaning: str


_SEQUENCE_OUTPUT = ("sample", "time", "output_unit")
_SEQUENCE_INPUT = ("sample", "time", "feature")

_BY_STEP = ("sample", "time")
_STATE = ("sample", "time", "direction", "unit")
_GATE = ("sample", "time", "direction", "gate", "unit")
_INITIAL = ("sample", "direction", "unit")

VARIABLES: Mapping[str, Variable] = {
    "input": Variable(_SEQUENCE_INPUT, "x_t", "the layer's input"),
    "input_gradient": Variable(
        _SEQUENCE_INPUT, "dL/dx_t", "sensitivity to the input, through this layer alone"
    ),
    "output": Variable(_SEQUENCE_OUTPUT, "out_t", "the tensor that the layer returns"),
    "output_gradient": Variable(_SEQUENCE_OUTPUT, "∂L/∂out_t", "gradient that enters step t from above"),
    "logits_gradient": Variable(
        _SEQUENCE_OUTPUT, "∂L/∂logits_t", "gradient before the layer's softmax or sigmoid"
    ),
    "kernel": Variable(("direction", "feature", "gate", "unit"), "W", "input to gates"),
    "recurrent_kernel": Variable(("direction", "unit_from", "gate", "unit"), "U", "previous state to gates"),
    "bias": Variable(("direction", "gate", "unit"), "b", "added on the input side"),
    "recurrent_bias": Variable(("direction", "gate", "unit"), "b_r", "added on the recurrent side"),
    "hidden": Variable(_STATE, "h_t", "hidden state after step t"),
    "hidden_gradient": Variable(_STATE, "dL/dh_t", "total derivative through time"),
    "cell": Variable(_STATE, "c_t", "cell state after step t"),
    "cell_gradient": Variable(_STATE, "dL/dc_t", "total derivative through time, h_t following c_t"),
    "gate_activation": Variable(_GATE, "gate activation", "each gate at step t, after its activation"),
    "gate_gradient": Variable(_GATE, "dL/dz_t", "total derivative before the gate's activation"),
    "initial_hidden": Variable(_INITIAL, "h_0", "hidden state before step 0, if not 0"),
    "initial_cell": Variable(_INITIAL, "c_0", "cell state before step 0, if not 0"),
    "initial_hidden_gradient": Variable(_INITIAL, "dL/dh_0", "total derivative of the state before step 0"),
    "initial_cell_gradient": Variable(_INITIAL, "dL/dc_0", "total derivative of the cell before step 0"),
    "step_contribution": Variable(
        ("sample", "time", "direction"), "‖dU_(t)‖", "norm of step t's share of dL/dU"
    ),
    "state_jacobian": Variable(
        ("sample", "time", "direction", "state_unit", "state_unit_from"),
        "ds_t/ds_{t−1}",
        "all states after step t by those before it; the identity where the step is masked",
    ),
    "certificate_weights": Variable(
        ("direction",), "error", "sum of the steps' shares compared with autodiff's dL/dW"
    ),
    "certificate_time": Variable(("direction",), "error", "dL/dx_t of the adjoint compared with autodiff's"),
    "certificate_output": Variable(("direction",), "error", "outputs of the loop compared with the kernel's"),
    "lag_matrix": Variable(
        ("sample", "loss_time", "time", "direction"), "‖dℓ_s/ds_t‖", "gradient of loss s by the state at t"
    ),
    "lag_mean": Variable(("lag", "direction"), "mean ‖dℓ_s/ds_{s−k}‖", "over samples and loss steps, by lag"),
    "lag_mean_error": Variable(
        ("lag", "direction"), "error", "standard error of lag_mean over the sampled loss steps"
    ),
    "underflow": Variable(
        (), "fraction", "share of output_gradient's elements that are not 0, but 0 in training's float16"
    ),
    "reset": Variable(_BY_STEP, "reset", "True where a state enters that step t-1 did not return"),
    "carried_gradient": Variable(_BY_STEP, "‖dL/ds_t‖ from t+1", "gradient that step t+1 carries back to t"),
    "carried_by_state": Variable((*_BY_STEP, "state"), "‖dL/ds_t‖ from t+1", "the same for each state"),
    "valid": Variable(_BY_STEP, "valid", "False where the step was masked or padded"),
    "loss": Variable((), "L", "training loss of the batch"),
    "reduction_factor": Variable((), "factor", "factor of each sample's gradient in the loss"),
}
CERTIFICATES = ("certificate_weights", "certificate_time", "certificate_output")
WEIGHTS = ("kernel", "recurrent_kernel", "bias", "recurrent_bias")
# Names that nothing else in a tree may have: variables, dims, and names of `quantities=`.
RESERVED = frozenset(
    {
        *VARIABLES,
        *(dim for variable in VARIABLES.values() for dim in variable.dims),
        *("cell_unit", "row", "column", "depth", "exponent", "mode", "step"),
        *("time_label", "feature_label", "sample_label", "sample_loss"),
        *("certificate", "weights", "weight_gradients"),
    }
)
# Variables that `cells` computes inside a recurrent layer.
INSIDE = (
    *("hidden", "hidden_gradient", "cell", "cell_gradient", "gate_activation", "gate_gradient"),
    *("initial_hidden_gradient", "initial_cell_gradient", "step_contribution", "state_jacobian"),
)
# Names for `quantities=`: "weights" and "weight_gradients" stand for every weight of a layer, because layers
# that are not recurrent have other names for their weights.
QUANTITIES = (
    *("input", "input_gradient", "output", "output_gradient", "logits_gradient"),
    *INSIDE,
    *("reset", "carried_gradient", "certificate", "valid", "weights", "weight_gradients"),
)
# Gradients of each sample's loss: the mean over the batch is undone.
PER_SAMPLE = (
    *(name for name in QUANTITIES if name.endswith("_gradient")),
    *("step_contribution", "carried_by_state"),
)
GRADIENT_QUANTITIES = frozenset({*PER_SAMPLE, "certificate", "weight_gradients"})
ON_REQUEST = frozenset({"state_jacobian"})  # not part of "all": the square of the state's size at every step
LAGS = "lag_matrix"  # only on request: it costs many passes
LOSSES = "sample_loss"  # likewise: one pass more


def label_of(dim: str) -> str:
    """Name the coordinate that has the caller's labels along a dim."""
    return f"{dim}_label"


def quantities(requested: str | Iterable[str]) -> frozenset[str]:
    """Resolve the requested names to names of `QUANTITIES`.

    Parameters
    ----------
    requested : a name, or an iterable of names
        The name of a weight (`kernel`, `bias_gradient`) stands for all weights, or all their gradients; "all"
        for every quantity but `state_jacobian`.

    Examples
    --------
    >>> sorted(quantities(["output", "kernel_gradient"]))
    ['output', 'weight_gradients']
    """
    if isinstance(requested, str):
        requested = (requested,)
    return frozenset().union(*map(_quantities, requested))


def _quantities(name: str) -> frozenset[str]:
    if name == "all":
        return frozenset(QUANTITIES) - ON_REQUEST
    return frozenset({_quantity(name)})


def _quantity(name: str) -> str:
    if name in QUANTITIES:
        return name
    if name in CERTIFICATES:
        return "certificate"
    if name in WEIGHTS:
        return "weights"
    if name.removesuffix("_gradient") in WEIGHTS:
        return "weight_gradients"
    raise SchemaError(
        f"There is no quantity {name!r}. quantities= takes 'all' or names of: "
        f"{', '.join((*QUANTITIES, *WEIGHTS))}, and each weight's '…_gradient'."
        f"{did_you_mean(name, (*QUANTITIES, *WEIGHTS))}"
    )


def words(states: tuple[str, ...], marks: tuple[str, ...] = ()) -> Mapping[str, Variable]:
    """Add the variables of a custom cell's states, such as `memory_gradient`, and of marks to `VARIABLES`."""
    own = [state for state in states if state not in VARIABLES]
    named = {name: word for state in own for name, word in _words_of(state).items()}
    for name in marks:
        named[name] = Variable(_STATE, f"{name}_t", f"what tt.mark names {name} at step t")
        named[f"{name}_gradient"] = Variable(_STATE, f"dL/d{name}_t", "total derivative through time")
    return {**VARIABLES, **named} if named else VARIABLES


def _words_of(state: str) -> dict[str, Variable]:
    through_time = "total derivative through time, with the states of a step as independent variables"
    return {
        state: Variable(_STATE, f"{state}_t", f"state {state} after step t"),
        f"initial_{state}": Variable(_INITIAL, f"{state}_0", f"state {state} before step 0, if not 0"),
        f"{state}_gradient": Variable(_STATE, f"dL/d{state}_t", through_time),
        f"initial_{state}_gradient": Variable(
            _INITIAL, f"dL/d{state}_0", "total derivative of the state before step 0"
        ),
    }


def as_known(name: str, states: tuple[str, ...]) -> str:
    """Replace the name of a cell's first state by `hidden`, and that of any other state by `cell`.

    >>> as_known("state_0_gradient", ("state_0", "state_1")), as_known("state_1", ("state_0", "state_1"))
    ('hidden_gradient', 'cell')
    """
    return _in_place_of(name, states[:1], "hidden") or _in_place_of(name, states[1:], "cell") or name


def _in_place_of(name: str, states: Collection[str], word: str) -> str:
    """Replace a state's name by a word; return an empty string if the name belongs to no state."""
    state = name.removeprefix("initial_").removesuffix("_gradient")
    start = len("initial_") if name.startswith("initial_") else 0
    return f"{name[:start]}{word}{name[start + len(state) :]}" if state in states else ""


def reason_key(name: str, attributes: Mapping[str, Any]) -> str:
    """Key of the reason for a missing variable: its own, or that of all inner variables."""
    is_inside = name in INSIDE or name.startswith("certificate")
    return "inside" if is_inside and "missing_inside" in attributes else name
