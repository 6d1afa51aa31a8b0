"""TensorFlow 1's graph mode, for this whole process."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import tensorflow as tf

tf.compat.v1.disable_eager_execution()


@pytest.fixture(autouse=True)
def _graph_of_its_own() -> Iterator[None]:
    """Each test has a graph, its seed, and Keras' session for it."""
    from tests.tf_keras.legacy import K

    K.clear_session()
    tf.compat.v1.set_random_seed(0)
    yield
    K.clear_session()
