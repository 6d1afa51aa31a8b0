"""Records of parts of a batch are joined as the loss joins samples."""

from __future__ import annotations

import numpy as np
import pytest

from throughtime._capture.splitting import Joined
from throughtime.adapters.records import MEAN, ONE_SAMPLE, SUM, LayerRecord, ModelRecord


def part(values, *, how=MEAN, loss=1.0, gradient=1.0, certificate=1e-7, **record):
    values = np.asarray(values, "float32")
    arrays = {
        "output_gradient": values[:, None],
        "kernel": np.full((2, 2), 5.0, "float32"),
        "kernel_gradient": np.full((2, 2), gradient, "float32"),
        "certificate_weights": np.asarray(certificate),
    }
    leaf = LayerRecord("lstm", "lstm", arrays)
    factor = 1.0 / len(values) if how == MEAN else 1.0
    record = {"weight": float(len(values)), **record}
    return ModelRecord((leaf,), {"loss_reduction": how}, loss, factor, **record)


def joined(*parts):
    whole, start = Joined(sum(len(one.layers[0].arrays["output_gradient"]) for one in parts)), 0
    for one in parts:
        rows = slice(start, start + len(one.layers[0].arrays["output_gradient"]))
        assert whole.add(one, rows) == ""
        start = rows.stop
    record = whole.record()
    return record, record.layers[0].arrays


def test_a_mean_weighs_parts_by_their_samples():
    record, arrays = joined(
        part([1, 2, 3], loss=4.0, gradient=2.0, certificate=np.nan),
        part([4], loss=8.0, gradient=6.0, certificate=3e-7),
        part([5], loss=0.0, gradient=0.0, certificate=2e-7),
    )
    assert record.loss == pytest.approx((3 * 4 + 8) / 5)
    assert record.reduction_factor == 1 / 5
    assert record.attributes["chunks"] == 3
    np.testing.assert_allclose(arrays["kernel_gradient"], (3 * 2 + 6) / 5, rtol=1e-6)
    np.testing.assert_array_equal(arrays["output_gradient"][:, 0], [1, 2, 3, 4, 5])
    np.testing.assert_array_equal(arrays["kernel"], 5)
    assert arrays["certificate_weights"] == 3e-7


def test_a_sum_is_added_up():
    record, arrays = joined(part([1, 2], how=SUM, loss=4.0), part([3], how=SUM, loss=8.0))
    assert record.loss == 12
    assert record.reduction_factor == 1
    np.testing.assert_array_equal(arrays["kernel_gradient"], 2)


def test_a_mean_over_valid_steps_weighs_parts_by_those():
    record, arrays = joined(
        part([1, 1], weight=6.0, loss=1.0), part([1, 1], weight=2.0, loss=5.0), part([0, 0], weight=0.0)
    )
    assert record.loss == pytest.approx(2.0)
    # Of 8 valid steps in 6 samples: each part's gradients came as if its own were all there are.
    np.testing.assert_allclose(arrays["output_gradient"][:, 0], [9 / 4, 9 / 4, 3 / 4, 3 / 4, 0, 0])


def test_what_one_part_does_not_reach_is_zero_there():
    without = part([2, 2])
    del without.layers[0].arrays["output_gradient"]
    whole = Joined(3)
    whole.add(part([1]), slice(0, 1))
    whole.add(without, slice(1, 3))
    np.testing.assert_array_equal(whole.record().layers[0].arrays["output_gradient"][:, 0], [1, 0, 0])


def test_one_sample_does_not_tell_how_a_loss_reduces():
    assert "a single one does not show" in Joined(3).add(part([1], how=ONE_SAMPLE), slice(0, 1))


def test_a_last_part_of_one_sample_follows_the_first():
    record, _ = joined(part([1, 2]), part([3], how=ONE_SAMPLE, loss=4.0))
    assert record.loss == pytest.approx(2.0)


def test_an_array_without_a_sample_axis_is_noticed():
    why_whole = Joined(9).add(part([1, 2]), slice(0, 3))
    assert "output_gradient of lstm, 2, is not that of the 3 samples" in why_whole


def test_a_model_that_calls_other_layers_is_noticed():
    whole = Joined(2)
    whole.add(part([1]), slice(0, 1))
    other = part([1])
    renamed = LayerRecord("gru", "gru", other.layers[0].arrays)
    assert "other layers" in whole.add(ModelRecord((renamed,), other.attributes, 1.0, 1.0), slice(1, 2))


def test_why_a_part_does_not_add_up_is_passed_on():
    assert Joined(2).add(part([1], why_whole="it is stateful"), slice(0, 1)) == "it is stateful"
