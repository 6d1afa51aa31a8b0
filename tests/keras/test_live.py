"""The live page of a monitor within `fit`: it follows, and training stays the same bit for bit."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from tests.live.test_page import check_against_run, wait_for
from tests.render.browser import chromium, visited

import throughtime as tt

X = np.random.default_rng(0).normal(size=(32, 12, 3)).astype("float32")
Y = X.sum((1, 2))[:, None]


class AtEachEpoch(keras.callbacks.Callback):
    def __init__(self, act):
        super().__init__()
        self.act = act

    def on_epoch_end(self, epoch, logs=None):
        self.act(epoch)


def model():
    keras.utils.set_random_seed(0)
    made = keras.Sequential([keras.Input((12, 3)), keras.layers.LSTM(5, name="rnn"), keras.layers.Dense(1)])
    made.compile("adam", "mse")
    return made


@pytest.mark.filterwarnings("ignore::throughtime.ThroughTimeWarning")
@pytest.mark.slow
def test_it_follows_fit_which_stays_as_it_is(tmp_path):
    alone, seen = model(), model()
    alone.fit(X, Y, batch_size=8, epochs=3, verbose=0, shuffle=False)
    monitor = tt.Monitor(tmp_path / "run.zarr", batch=(X[:8], Y[:8]), every=2)
    compared = []
    with chromium() as browser:
        page = visited(browser, monitor.url)

        def look(epoch):
            wait_for(page, 4 * (epoch + 1))
            check_against_run(page, tt.open_run(tmp_path / "run.zarr"))
            compared.append(epoch)

        callbacks = [monitor.keras(), AtEachEpoch(look)]
        seen.fit(X, Y, batch_size=8, epochs=3, verbose=0, shuffle=False, callbacks=callbacks)
        assert page.complaints == []
    monitor.close()
    assert compared == [0, 1, 2]
    for left, right in zip(alone.get_weights(), seen.get_weights(), strict=True):
        np.testing.assert_array_equal(left, right)
