"""Why an array that was asked for does not exist, in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from throughtime.adapters.records import UNREACHED, Array

from .tensors import is_float

if TYPE_CHECKING:
    from .recorder import SeenCall

NO_TENSOR = "the layer returns neither a tensor nor a list of tensors"
SEVERAL_INPUTS = "its input is several tensors, not one"
_INTEGER_INPUT = "its input is {dtype}, which has no gradient; differentiate the layer that embeds it"
_INTEGER_OUTPUT = "its output is {dtype}, which has no gradient"
_INTEGER_WEIGHT = "its values are integers, which have no gradient"
_NOT_RECURRENT = "inputs are captured for recurrent layers only"
_FINAL_STATES = "the loss depends on the layer's final states, not on its output"
_READS_LOGITS = (
    "the loss reads the logits behind this activation, not its output: logits_gradient of capture() has them"
)


def of_output_gradient(call: SeenCall, gradients: Mapping[str, Any], *, reads_logits: bool) -> str:
    """Tell why a call's output has no gradient."""
    if not call.outputs:
        return NO_TENSOR
    if not is_float(call.output_dtype):
        return _INTEGER_OUTPUT.format(dtype=call.output_dtype)
    if reads_logits:
        return _READS_LOGITS
    if any(call.key("state_0", part) in gradients for part in range(len(call.inside))):
        return _FINAL_STATES
    return UNREACHED


def of_input_gradient(call: SeenCall, *, is_recurrent: bool) -> str:
    """Tell why a call's input has no gradient."""
    if call.input_dtype and not is_float(call.input_dtype):
        return _INTEGER_INPUT.format(dtype=call.input_dtype)
    if not is_recurrent:
        return _NOT_RECURRENT
    return UNREACHED if call.input_dtype else SEVERAL_INPUTS


def of_weight_gradients(are_float: Mapping[str, Array], found: Mapping[str, Array]) -> dict[str, str]:
    """Tell why weights have no gradient: by name, for those that are not among the gradients found."""
    return {
        name: UNREACHED if are_float[name].all() else _INTEGER_WEIGHT
        for name in are_float.keys() - found.keys()
    }
