"""The assertions for tests, on Keras 2 models that pass and that fail."""

from __future__ import annotations

from tests.assertion_cases import KERAS, check_assertions
from tests.tf_keras.legacy import keras


def test_assertions_pass_and_fail_in_pytest(tmp_path):
    check_assertions(tmp_path, KERAS.format(keras=keras.__name__))
