"""Every sentence a diagnosis can say, in one place.

`say` fills one in. Nothing here is concluded: `judge` decides, and the tests produce each sentence.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

SENTENCES: Mapping[str, str] = {
    # The verdict: use and reach, SCIENCE's table.
    "uses": "Yes: the model uses information {lag} or more steps back, and error signal reaches it.",
    "uses_unclear_reach": (
        "Yes: the model uses information {lag} or more steps back. Whether error signal reaches it is not "
        "settled: R({lag}) is {reach}."
    ),
    "weak_signal": (
        "Used, but the training signal at lag {lag} is weak: {reach} of that at lag 0. New long-lag learning "
        "would be slow."
    ),
    "unused": (
        "Gradient reaches lag {lag}, but predictions do not depend on inputs that old: it is not a vanishing "
        "problem."
    ),
    "no_evidence": (
        "No evidence of use at lag {lag}; the signal there is {reach} of that at lag 0. If the task needs "
        "lag {lag}, this is what vanishing looks like; if it does not, nothing is wrong."
    ),
    "no_evidence_open": (
        "No evidence that inputs {lag} or more steps back are used; the signal there is {reach} of that at "
        "lag 0. Whether the task needs them is for you to say: dependency_length=."
    ),
    "no_evidence_unclear": (
        "Cannot say: predictions do not depend on inputs {lag} or more steps back, and whether error signal "
        "reaches them is not settled: R({lag}) is {reach}. More samples would settle it."
    ),
    # Unstable.
    "exploding": (
        "Unstable: the error signal of {layer} grows {factor}-fold from lag 0 to lag {lag}, by {rate} a step "
        "in its logarithm."
    ),
    "norms": "log10 of the gradient's norm before clipping: {norms}.",
    "nonfinite": "Unstable: the first number that is not finite, in the {phase} pass, is {where}.",
    # Cannot say.
    "nonfinite_data": "Cannot say: the data are not finite, {where}. Clean them first.",
    "loss_scaling": (
        "Cannot say: {where}, in float16. Under dynamic loss scaling that is no fault: such a step is "
        "skipped and the scale lowered. Capture again, or in float32."
    ),
    "certificate": "Cannot say: {reason}",
    "beyond_window": (
        "Cannot say: lag {lag} lies beyond the window, whose longest sequence has lags up to {longest}. A "
        "longer window would settle it."
    ),
    "all_masked": "Cannot say: every step of every sample is masked. Is the mask the right way round?",
    "no_signal": (
        "Cannot say: no sample has any error signal at lag 0 of {layer}. Does the loss read its last step, "
        "and is it above 0?"
    ),
    "no_gradient": (
        "Cannot say: {layer} has no gradients of its states: {reason}. With labels, and a cell that can be "
        "looked into, reach would be measured."
    ),
    "use_unclear": (
        "Cannot say whether inputs {lag} or more steps back are used: U({lag}) is {use}, held against "
        "{threshold}. More samples would settle it; these are {n}."
    ),
    "use_not_measured": "Cannot say whether inputs {lag} or more steps back are used: {reason}.",
    "reach_too": "Measured was reach: R({lag}) is {reach}: {answer}.",
    "no_settled_use": "Cannot say: {reason}.",
    # What stands beside any verdict.
    "solved": "The loss, {loss}, is at or below solved={solved}: nothing needs to be changed.",
    "open_lags": "Use was found for every lag up to {lag}, of {lags}.",
    # Over the training steps of a run.
    "last_record": "After training step {step}, the last that was recorded:",
    "over_training": "Over training, {n} of {all} recorded steps:",
    "trend_risen": "Reach of {layer} at lag {lag} has risen since step {first}: from {before} to {after}.",
    "trend_fallen": "Reach of {layer} at lag {lag} has fallen since step {first}: from {before} to {after}.",
    "trend_same": (
        "Reach of {layer} at lag {lag} has not changed since step {first} by more than its intervals: from "
        "{before} to {after}."
    ),
    "trend_values": (
        "Reach of {layer} at lag {lag} was {before} at step {first} and is {after}, without intervals."
    ),
    "trend_stopped": "{n} of these records tell nothing, the first at step {step}: {reason}",
    "no_run": (
        "step={step} chooses among the recorded training steps of a run, and this has none: open one with "
        "tt.open_run."
    ),
    "reach_of_summary": "Measured was reach: R({lag}) of {layer} is {reach}, a median over samples.",
    "nonfinite_record": "Unstable: {name} of {layer} is not finite.",
    # Notes.
    "alarm": "Alarm while it trained, {alarm}.",
    "few_samples": "Only {n} samples: intervals over fewer than 16 are rough. Give more.",
    "one_sample": "One sample has no interval, and none to exchange inputs with. Give 16 or more.",
    "dead_samples": "{n} of {all} samples have no signal at lag 0 of {layer} and are left out.",
    "unread_direction": "The loss does not read what {layer} ends with: its reach was not measured.",
    "without_partner": "{n} samples share their mask with no other and take no part in measuring use.",
    "noise": (
        "The samples' gradients of {layer} point in no common direction: κ = {kappa}, noise gives {floor}. "
        "Its share tells of noise."
    ),
    "little_gain": (
        "All inputs together lower the loss by {share} of it: what is used is used for little, "
        "as before training."
    ),
    "either_direction": (
        "The model reads in both directions: use is of inputs at least that many steps from both ends, of "
        "either direction."
    ),
    "per_step": "The loss has a value at every step: reach is read from the lag matrix, use at {n} steps.",
    "per_step_unmeasured": "the loss has a value at every step and the lag matrix cannot be had: {reason}",
    "read_at_many_steps": (
        "What reads {layer} reads more than its last step: some of its signal comes from there and not "
        "through its own recurrence."
    ),
    "rounded": (
        "The certificate of {layer} is {error}, above {bar}: more rounding than usual, as in chaotic "
        "networks and near saturated gates, and too little to change an answer here."
    ),
    "stateful": "{layer} is stateful: no gradient crosses the edge of the window of {steps} steps.",
    "masked": "{share} of the steps are masked and do not count as time.",
    # Why use was not measured, or is unclear.
    "needs_model": "a capture alone cannot tell; pass the model and its data",
    "coupled": "the loss couples samples, so that none can lend its inputs to another",
    "single": "one sample has none to exchange inputs with",
    "no_partner": "no two samples share length and mask",
    "equal_inputs": "the samples have equal inputs, so that exchanging them changes nothing",
    "no_time_axis": "no input of the model has the {steps} steps of {layer} on its second axis",
    "no_losses": "the loss of single samples cannot be evaluated: {reason}",
    "reversed": "a layer hands its sequence on reversed, so that lags of one layer are not those of the next",
    "loss_is_zero": "the loss is 0 whatever inputs come from elsewhere",
    "too_short": "no sample has inputs {lag} steps old",
    "summary_reach": "a summary has no interval over samples; quantities='timestep' records what gives one",
    # Why the share was not measured.
    "summary_share": "a summary has no contributions of each sample; quantities='timestep' records them",
    "no_contributions": "no step contributes anything to the recurrent kernel's gradient",
    "share_per_step": "with a loss at every step a contribution belongs to no single lag",
    # Evidence.
    "timescale": "gate timescales τ in steps: median {median}, p90 {p90}, largest {largest}",
    "saturation": "{gate} gate near 0 at {left} of the steps, near 1 at {right}",
    "decay": "the signal changes by {rate} a step in its logarithm{fit}",
    "lyapunov": "largest Lyapunov exponent of the states {exponent} a step",
    "spectrum": "spectral radius of the recurrent kernel {radius}, largest singular value {sigma}",
    "spectrum_of_gates": "spectral radius of the recurrent kernel by gate: {told}",
    "floor": (
        "{share} of the recurrent weights have gradients under 10 times the optimizer's epsilon, {epsilon}"
    ),
    "forget_bias": "mean bias of the {gate} gate {bias}",
    # Remedies.
    "remedy_chrono": (
        "start the {gate} gate's bias at ln U(1, {longest}), so that timescales up to the lag exist "
        "(chrono initialisation)"
    ),
    "remedy_forget_bias": "start the forget gate's bias at 1",
    "remedy_orthogonal": "start the recurrent kernel orthogonal, or at the identity with relu",
    "remedy_clipping": "clip the gradient by its norm",
    "remedy_window": "train on windows longer than {lag} steps",
    "remedy_epsilon": "lower the optimizer's epsilon",
}
SOURCES: Mapping[str, str] = {
    "remedy_chrono": "Tallec & Ollivier 2018, arXiv 1804.11188",
    "remedy_forget_bias": "Jozefowicz, Zaremba & Sutskever 2015, ICML",
    "remedy_orthogonal": "Le, Jaitly & Hinton 2015, arXiv 1504.00941",
    "remedy_clipping": "Pascanu, Mikolov & Bengio 2013, arXiv 1211.5063",
    "remedy_window": "gradient does not cross the edge of a window",
    "remedy_epsilon": "Kingma & Ba 2015, arXiv 1412.6980: the step is m/(√v + epsilon)",
}


def say(key: str, **values: Any) -> str:
    """Fill in one sentence.

    Examples
    --------
    >>> say("coupled")
    'the loss couples samples, so that none can lend its inputs to another'
    """
    return SENTENCES[key].format(**values)


def number(value: float) -> str:
    """Write a number with three digits.

    Examples
    --------
    >>> number(0.000123456), number(float("nan"))
    ('0.000123', 'not measured')
    """
    return "not measured" if math.isnan(value) else f"{value:.3g}"


def with_interval(value: float, interval: tuple[float, float]) -> str:
    """Write a number with its interval, where it has one.

    Examples
    --------
    >>> with_interval(0.5, (0.4, 0.6)), with_interval(0.5, (float("nan"), float("nan")))
    ('0.5 [0.4, 0.6]', '0.5')
    """
    if any(math.isnan(end) for end in interval):
        return number(value)
    return f"{number(value)} [{number(interval[0])}, {number(interval[1])}]"


def percent(share: float) -> str:
    """Write a share.

    Examples
    --------
    >>> percent(0.256)
    '26%'
    """
    return f"{share:.0%}"
