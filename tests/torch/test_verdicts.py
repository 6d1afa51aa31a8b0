"""Networks of the census: verdict and alarms agree with what training does and what exchanges show."""

from __future__ import annotations

import pytest
from benchmarks.verdicts import trained, untrained
from benchmarks.verdicts.rates import Row
from benchmarks.verdicts.said import said
from benchmarks.verdicts.training import trained as after_training
from benchmarks.verdicts.truth import truth

CASES = {case.name: case for case in (*untrained.NETWORKS, *trained.NETWORKS)}


@pytest.mark.parametrize(
    "name",
    [
        "untrained-stacked",  # next to no error enters the backward half at its lag 0
        "trained-lstm-first-half",  # its largest gradient is at the lag that it has learned
        "trained-lstm-attention",
        "trained-relu-expanding-adam",  # gradients explode, and an optimizer that rescales them does not mind
        "expanding-relu-masked",
        "built-register-every-used",
    ],
)
def test_verdict_and_alarms_are_what_training_shows(name):
    network = after_training(CASES[name], 0, None)
    row = Row(CASES[name], 0, network.updates, truth(network, None), said(network, 64))
    assert not row.wrong, row.line + row.said.text
    assert row.alarmed == row.unstable, row.line
