"""Every sentence of a diagnosis, in one place.

`phrase` fills one in; `judge` decides which, and the tests produce each of them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

SENTENCES: Mapping[str, str] = {
    # The verdict: use, then how much of the gradient arrives in each layer.
    "uses": "Yes: the model uses {inputs}. {use} of the inputs' contribution comes from there. {sizes}",
    "weak_signal": (
        "The model uses {inputs}, but little gradient arrives there, so that it would learn other "
        "dependencies of this length slowly. {sizes}"
    ),
    "unused": (
        "{sizes} The model does not use inputs that old yet, and vanishing gradients are not the reason."
    ),
    "unused_faint": "{sizes} The model does not use such inputs yet, and so small a gradient teaches slowly.",
    "unused_mixed": "{sizes} The model does not use inputs that old yet.",
    "newest": (
        "The model uses the input of the step that it reads, and none before. A task that needs no memory is "
        "learned like this. {sizes}"
    ),
    "no_evidence": (
        "{sizes} The model does not use inputs that old, and so little gradient would teach it only slowly. "
        "If the loss is good all the same, the task does not need this lag."
    ),
    "no_evidence_open": (
        "{sizes} The model does not use inputs that old. Pass dependency_length=, the lag that the task "
        "needs."
    ),
    "no_evidence_unclear": (
        "Cannot decide: the model does not use inputs {lag} or more steps back, and more samples are needed "
        "to decide whether gradient arrives there. {sizes}"
    ),
    "sizes": "At lag {lag} the gradient is {sizes}.",
    "size_vanishing": "{size} in {layer} (vanishing)",
    "size": "{size} in {layer}",
    "size_unclear": "{size} in {layer} (unclear: between {low} and {high})",
    "of_lag_0": "{size} of its size at lag 0",
    # Unstable.
    "exploding_step": (
        "Unstable: gradients of {layer} grow {factor}-fold within {lag} steps, and the next step of "
        "{optimizer} changes its recurrent weights by {step} times their norm. The loss may have fallen so "
        "far; this verdict is about the next step."
    ),
    "exploding_loss": (
        "Unstable: gradients of {layer} grow {factor}-fold within {lag} steps, and the loss is {times} times "
        "that of the first record."
    ),
    "norms": "Gradient norm of the recurrent weights{clipping}: {norms}.",
    "nonfinite": "Unstable: the first number that is not finite, in the {phase} pass, is {where}.",
    "growth_alone": (
        "The gradient of {layer} grows {factor}-fold, which is no fault in itself: it does harm only where a "
        "training step becomes too large{step}."
    ),
    "rescaled": "; this optimizer rescales gradients, so that its steps do not grow with them",
    # A model that reads its layer in an unintended way.
    "first_step_only": (
        "The model reads {layer} only after its first step: {way} has read a single input there, and its "
        "memory plays no part."
    ),
    "samples_as_steps": "{layer} takes the {samples} samples for steps, and carries states across them",
    # No verdict.
    "nonfinite_data": "Cannot decide: the data are not finite, {where}. Clean them first.",
    "loss_scaling": (
        "Cannot decide: {where}, in float16. Dynamic loss scaling skips such a step and lowers the scale, so "
        "this is no fault. Capture again, or in float32."
    ),
    "certificate": "Cannot decide: {reason}",
    "beyond_window": (
        "Cannot decide: the longest sequence has lags up to {longest}, and lag {lag} lies beyond it. Pass "
        "longer sequences."
    ),
    "all_masked": "Cannot decide: every step of every sample is masked. The mask may be inverted.",
    "no_signal": (
        "Cannot decide: no sample has a gradient at lag 0 of {layer}. Either the loss does not read its last "
        "step, or the loss is 0."
    ),
    "no_gradient": (
        "Cannot decide: {layer} has no gradients of its states: {reason}. Reach needs labels, and a cell "
        "whose states can be read."
    ),
    "use_unclear": (
        "Cannot decide whether the model uses inputs {lag} or more steps back: U({lag}) is {use}, and its "
        "interval includes the threshold {threshold}. {n} samples are too few."
    ),
    "use_not_measured": "Use at lag {lag} was not measured: {reason}.",
    "use_needs_model": (
        "Use at lag {lag} was not measured: diagnose(model, x, y, dependency_length={lag}) measures it."
    ),
    "horizons": "The last lag with 1 % of the gradient at lag 0 is {horizons}.",
    "no_settled_use": "Cannot decide: {reason}.",
    # Sentences beside any verdict.
    "solved": "The loss, {loss}, is at or below solved={solved}: nothing needs to be changed.",
    "open_lags": "The model uses inputs at every lag up to {lag}, of {lags}.",
    # Over the training steps of a run.
    "last_record": "At training step {step}, the last recorded one:",
    "over_training": "During training, {n} of {all} recorded steps:",
    "trend_risen": "Reach of {layer} at lag {lag} has risen since step {first}, from {before} to {after}.",
    "trend_fallen": "Reach of {layer} at lag {lag} has fallen since step {first}, from {before} to {after}.",
    "trend_same": (
        "Reach of {layer} at lag {lag} was {before} at step {first} and is {after}; the intervals overlap, "
        "so no change is certain."
    ),
    "trend_floor": "Reach of {layer} at lag {lag} was and is below 6e-08 (2⁻²⁴), too small to count.",
    "trend_values": (
        "Reach of {layer} at lag {lag} was {before} at step {first} and is {after}. These medians have no "
        "intervals."
    ),
    "trend_stopped": "{n} of these records could not be judged, the first at step {step}: {reason}",
    "no_run": (
        "step={step} selects a recorded training step of a run, and this is no run. Open one with "
        "tt.open_run."
    ),
    "nonfinite_record": "Unstable: {name} of {layer} is not finite.",
    # Notes.
    "alarm": "Alarm during training, {alarm}.",
    "few_samples": "Intervals over {n} samples are rough. Pass 16 or more.",
    "one_sample": "A single sample has no interval and no partner to exchange inputs with. Pass 16 or more.",
    "dead_samples": "{n} of {all} samples have no gradient at lag 0 of {layer} and are left out.",
    "unread_direction": "The loss does not read the last step of {layer}, so its reach was not measured.",
    "without_partner": "{n} samples share their mask with no other and are left out of use.",
    "noise": (
        "The samples' gradients of {layer} have no common direction: κ = {kappa}, and noise alone gives "
        "{floor}. Its share describes noise."
    ),
    "either_direction": (
        "The model reads in both directions: use is that of inputs at least so many steps from both ends."
    ),
    "per_step": (
        "Every step has a loss: reach comes from the lag matrix, use from {n} of the steps, and from {more} "
        "at a lag asked about that {n} leave unclear."
    ),
    "per_step_unmeasured": "every step has a loss, and the lag matrix could not be computed: {reason}",
    "from_last_step": (
        "The model reads several steps of {layers}: reach and share are those of the error that enters at the"
        " last step alone."
    ),
    "rounded": (
        "The certificate of {layer} is {error}, above {bar}: more rounding than usual, as in chaotic networks"
        " and near saturated gates, and too little to change an answer here."
    ),
    "stateful": "{layer} is stateful: no gradient crosses the edge of the window of {steps} steps.",
    "masked": "{share} of the steps are masked and do not count as time.",
    # Why use was not measured, or is unclear.
    "needs_model": "it needs the model and its data",
    "coupled": "the loss couples samples, so that inputs cannot be exchanged between them",
    "single": "a single sample has no partner to exchange inputs with",
    "no_partner": "no two samples share length and mask",
    "equal_inputs": "the samples have equal inputs, so that exchanging them changes nothing",
    "no_time_axis": "no input of the model has the {steps} steps of {layer} on its second axis",
    "no_losses": "the loss of single samples cannot be evaluated: {reason}",
    "reversed": "a layer returns its sequence reversed, so that lags of one layer are not those of the next",
    "little_gain": (
        "All inputs together lower the loss by {share}: the model hardly uses inputs of any age yet."
    ),
    "inputs_do_harm": (
        "The model's loss is {own}, and {shared} if all samples get the same inputs: it gains nothing from "
        "inputs of any age yet."
    ),
    "labels_at_steps": "labels lie at several steps: pass samples first, and a label for each step",
    "resets": (
        "states are reset within the samples, so that older inputs are out of reach by design; make each "
        "episode a separate sample"
    ),
    "loss_is_zero": "the loss is 0 with the inputs of any sample",
    "too_short": "no sample has inputs {lag} steps from each end that is read",
    # Why reach or share was not measured.
    "not_comparable": (
        "the model reads several steps of this layer, and the share of one of them is not known: {reason}"
    ),
    "no_error_at_end": "no error enters at the last step of this layer",
    "summary_reach": "a summary has no interval over samples; record with quantities='timestep'",
    "summary_share": "a summary has no contributions of each sample; record with quantities='timestep'",
    "summary_not_comparable": "the model reads several steps of this layer, whose cell has no closed form",
    "no_contributions": "no step contributes to the gradient of the recurrent kernel",
    "share_undefined": (
        "only the first step is {lag} steps back; it has no state before it and contributes 0 by construction"
    ),
    "share_per_step": "every step has a loss, and a contribution belongs to no single lag",
    # Evidence.
    "timescale": "gate timescales τ in steps: median {median}, p90 {p90}, largest {largest}",
    "saturation": "{gate} gate {end} at {share} of the steps",
    "decay": "ln R(k) changes by {rate} per step{fit}",
    "misread": "the model reads {layer} after a single step",
    "cut": "no gradient crosses the edge of a window {lag} steps back: the state is detached there",
    "dead": "{share} of the units are 0 at every step of every sample",
    "growth": "the gradient is largest at lag {lag}, {factor} times its size at lag 0",
    "step": "the next step of the optimizer changes the recurrent weights by {step} times their norm",
    "clip_norm": "clipping the gradient at norm {norm} limits a step to 0.01 times the norm of these weights",
    "lyapunov": (
        "largest Lyapunov exponent of the states {exponent}, mean of {n}: each step multiplies a gradient in "
        "that direction by {factor}"
    ),
    "spectrum": "spectral radius of the recurrent kernel {radius}, largest singular value {sigma}",
    "spectrum_of_gates": "spectral radius of the recurrent kernel by gate, before the gates act: {radii}",
    "floor": (
        "{share} of the recurrent weights have gradients below 10 times the optimizer's epsilon, {epsilon}"
    ),
    "forget_bias": "mean bias of the {gate} gate {bias}",
    # The optimizer, in these sentences.
    "optimizer": "gradient descent at rate {rate}",
    "optimizer_assumed": (
        "gradient descent (no optimizer was passed; rate {rate} without clipping is assumed)"
    ),
    # Remedies.
    "remedy_chrono": (
        "initialise the {gate} gate's bias with logarithms of times between 1 and {longest} steps (chrono "
        "initialisation), and train again"
    ),
    "remedy_forget_bias": "initialise the forget gate's bias with 1",
    "remedy_orthogonal": "initialise the recurrent kernel as orthogonal, or with relu as the identity",
    "remedy_clipping": "clip the gradient by its norm, which limits each step but not the growth itself",
    "remedy_kernel": (
        "make the recurrent kernel smaller, which removes the growth: scale its spectral radius to 1, or "
        "initialise it as orthogonal{gated}"
    ),
    "remedy_window": "train on windows of more than {lag} step{s}",
    "remedy_epsilon": "lower the optimizer's epsilon",
    "remedy_ends": (
        "read each direction where it ends: the forward half at the last step, the backward half at the first"
    ),
    "remedy_batch_first": "pass batch_first=True to the layer, or time on the first axis of its input",
    "remedy_dead": "initialise the layer anew, with biases of 0, or use tanh; lower the learning rate",
    "remedy_last_step": "read the layer's last step, out[:, -1] of a forward layer",
}


def phrase(key: str, **values: Any) -> str:
    """Fill in one sentence.

    Examples
    --------
    >>> phrase("no_partner")
    'no two samples share length and mask'
    """
    return SENTENCES[key].format(**values)


def number(value: float) -> str:
    """Format a number with three digits.

    Examples
    --------
    >>> number(0.000123456), number(float("nan"))
    ('0.000123', 'not measured')
    """
    return "not measured" if math.isnan(value) else f"{value:.3g}"


def with_interval(value: float, interval: tuple[float, float]) -> str:
    """Format a number with its interval, if it has one.

    Examples
    --------
    >>> with_interval(0.5, (0.4, 0.6)), with_interval(0.5, (float("nan"), float("nan")))
    ('0.5 [0.4, 0.6]', '0.5')
    """
    if any(math.isnan(end) for end in interval):
        return number(value)
    return f"{number(value)} [{number(interval[0])}, {number(interval[1])}]"


def size(ratio: float) -> str:
    """Format a ratio: in percent, or as a multiple.

    Examples
    --------
    >>> size(0.0137), size(1.33), size(4.29), size(32000.0), size(1e-20)
    ('1.4 %', '133 %', '4.3 ×', '32,000 ×', '< 0.001 %')
    """
    if 0 < ratio < 1e-5:
        return "< 0.001 %"
    if ratio < 0.1:
        return f"{100 * ratio:.2g} %"
    if ratio < 2:
        return f"{100 * ratio:.0f} %"
    if ratio < 10:
        return f"{ratio:.1f} ×"
    return f"{ratio:,.0f} ×" if ratio < 1e6 else f"{ratio:.1e} ×"


def join_words(parts: list[str]) -> str:
    """Join the items of a list in a sentence.

    Examples
    --------
    >>> join_words(["a"]), join_words(["a", "b"]), join_words(["a", "b", "c"])
    ('a', 'a and b', 'a, b and c')
    """
    *first, last = parts
    return f"{', '.join(first)} and {last}" if first else last
