"""`Probe.losses` in graph mode."""

from __future__ import annotations

from typing import Any

import pytest
from tests.tf_keras import losses_alone
from tests.tf_keras.rows import squares


@pytest.mark.parametrize("loss", ["mse", squares], ids=["name", "function"])
def test_samples_alone_lose_what_their_mean_says(loss: Any) -> None:
    losses_alone.check_sum_of_parts(loss)


def test_masked_steps_and_samples_without_any() -> None:
    losses_alone.check_masked_samples()


def test_one_step_of_a_loss_per_step() -> None:
    losses_alone.check_one_step()
