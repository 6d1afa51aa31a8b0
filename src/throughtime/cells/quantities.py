"""The quantities that `solve` computes, by name, with definitions if frameworks differ.

Arrays are sample-major in input time; a SimpleRNN has no gate axis, and only an LSTM has a cell.
"""

from collections.abc import Mapping

DEFINITIONS: Mapping[str, str] = {
    "hidden": "(sample, time, unit): h after each step, carried over masked steps",
    "cell": "(sample, time, unit): c after each step, carried over masked steps",
    "gate_activation": (
        "(sample, time, gate, unit): after the activation; at masked steps what the cell computes and drops"
    ),
    # Over a masked step the state is copied, and so the gradient of later steps passes. The masked output's
    # own gradient belongs to the valid step that it repeats.
    "hidden_gradient": "(sample, time, unit): total dL/d(hidden state after step t)",
    "cell_gradient": (
        "(sample, time, unit): total dL/d(cell state after step t), the way through h_t = o·φ(c_t) included"
    ),
    "gate_gradient": (
        "(sample, time, gate, unit): dL/dz before the activation, for a GRU on the input side; 0 where masked"
    ),
    "input_gradient": "(sample, time, feature): dL/dx_t through this layer; 0 where masked",
    "initial_hidden_gradient": "(sample, unit): dL/dh before the step processed first",
    "initial_cell_gradient": "(sample, unit): dL/dc before the step processed first",
    # dU_(t) = h_{t-1}ᵀ dz_t has rank 1, so this is ‖h_{t-1}‖·‖dz_t‖, for a GRU with dz on the recurrent
    # side. A GRU with the reset before the product has two blocks of rank 1, h_{t-1}ᵀ[a_z a_r] and
    # (r·h_{t-1})ᵀ a_h: √(‖h‖²(‖a_z‖² + ‖a_r‖²) + ‖r·h‖²‖a_h‖²).
    "step_contribution": "(sample, time): Frobenius norm of dL/dU at step t",
    "kernel_gradient": "(feature, gate, unit): dL/dW, summed over samples and steps",
    "recurrent_kernel_gradient": "(unit_from, gate, unit): dL/dU, summed over samples and steps",
    "bias_gradient": "(gate, unit): dL/db on the input side",
    "recurrent_bias_gradient": "(gate, unit): dL/db on the recurrent side, where there is one",
    "projection_gradient": "(cell_unit, unit): dL/dP, where there is one",
}
QUANTITIES = frozenset(DEFINITIONS)
FORWARD = frozenset({"hidden", "cell", "gate_activation"})
WEIGHT_GRADIENTS = frozenset(
    f"{name}_gradient" for name in ("kernel", "recurrent_kernel", "bias", "recurrent_bias", "projection")
)
# Quantities with the gate axis, which a SimpleRNN lacks.
GATED = frozenset({"gate_activation", "gate_gradient"}) | WEIGHT_GRADIENTS
