"""What the words of a report mean, in a sentence each."""

from __future__ import annotations

from collections.abc import Mapping

TERMS: Mapping[str, str] = {
    "lag k": "k steps before the step that the loss reads. Masked steps do not count.",
    "gradient dL/dh, dL/dc": (
        "How the loss changes with a layer's hidden state h, or an LSTM's cell state c, at one step, through all "
        "later steps. The hidden gradient is dL/dh, the cell gradient dL/dc; the output gradient is the error that "
        "the layers above send to each step, without this layer's own recurrence."
    ),
    "reach R(k)": (
        "Gradient k steps back as a share of its size at lag 0. Below 1 % at a lag that the task needs it has "
        "vanished: the model hardly learns from inputs that old."
    ),
    "use U(k)": (
        "Share of what the inputs contribute to the loss that comes from inputs k or more steps old. It is 0 where "
        "the model ignores them, 1 where it needs nothing else. diagnose measures it: it exchanges inputs that old "
        "between samples and compares the losses."
    ),
    "horizon": "The largest lag at which R(k) is at least 1 %, median over samples; ≥ where the sequence ends first.",
    "share of lags ≥ k": "Part of the recurrent weights' gradient that comes from steps k or more steps back.",
    "step contribution": "How much one step adds to the gradient of the recurrent weights.",
    "k90": "Lags 0 to k90 hold 90 % of the step contributions.",
    "effective steps": "How many steps of equal size would make the same step contributions.",
    "yes, no, unclear": (
        "Whether the 95 % interval over samples lies above the threshold, below it, or includes it."
    ),
    "decay rate": "Slope of ln R(k) a step of lag: below 0 the gradient shrinks, above 0 it grows.",
    "Lyapunov exponent": "Rate a step at which two close states drift apart (above 0) or together (below 0).",
    "spectral radius": "Largest magnitude of an eigenvalue of the recurrent weights, here by gate.",
    "singular value": "The most by which the recurrent weights can stretch a state in one step.",
    "gate, timescale τ": (
        "A gate is a factor between 0 and 1 that a layer computes at each step. The forget gate of an LSTM and the "
        "update gate of a GRU keep the state: with a mean value f they keep it for about τ = −1 / ln f steps. Gates "
        "above 0.9 or below 0.1 count as saturated, right or left: they pass little gradient to their weights."
    ),
    "certificate": (
        "Relative error of the gradients inside a layer against the framework's own. Above what the precision "
        "allows, nothing is measured from them."
    ),
    "coherence κ": (
        "How far the samples' gradients agree in direction, from 0 to 1; near 1/√samples they are no more than noise."
    ),
    "numerical floor": (
        "2⁻²⁴ of the largest value: what is smaller does not change a float32 sum. Grey in heatmaps; exact zeros "
        "are white, masked steps hatched."
    ),
}
