"""A sweep of a model of legacy Keras."""

from __future__ import annotations

from pathlib import Path

from tests.keras_sweeps import check_each_checkpoint
from tests.tf_keras.legacy import keras


def test_each_checkpoint_is_one_capture_of_all_data(tmp_path: Path) -> None:
    check_each_checkpoint(keras, tmp_path)
