"""A sweep of a Keras model on the backend under test."""

from __future__ import annotations

from pathlib import Path

import keras
from tests.keras_sweeps import check_each_checkpoint


def test_each_checkpoint_is_one_capture_of_all_data(tmp_path: Path) -> None:
    check_each_checkpoint(keras, tmp_path)
