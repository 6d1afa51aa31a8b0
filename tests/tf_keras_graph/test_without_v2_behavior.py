"""TensorFlow without TensorFlow 2's behaviour, in a process of its own: old loops, shapes and layers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import json, sys
import tensorflow as tf
tf.compat.v1.disable_v2_behavior()
sys.path.insert(0, {root!r})
from importlib import import_module
from tests.tf_keras.legacy import keras, session
from tests.tf_keras.rows import B, M, T, compiled, normal, padded_batch
import throughtime as tt

L = keras.layers
old = [import_module(f"{{keras.__name__}}.src.layers.rnn.{{name}}_v1") for name in ("lstm", "gru")]
LSTM, GRU = (old[0].LSTM, old[1].GRU) if {v1} else (L.LSTM, L.GRU)
found = []
for training in (False, True):
    dropped = dict(dropout=0.3, recurrent_dropout=0.3) if training else {{}}
    lower = LSTM(3, return_sequences=True, recurrent_activation="sigmoid", **dropped)
    layers = [L.Input((T, M)), L.Masking(), lower, L.Bidirectional(GRU(4)), L.Dense(1)]
    model = compiled(keras.Sequential(layers))
    model.fit(padded_batch(), normal(B, 1), verbose=0)
    size = len(session().graph.get_operations())
    tree = tt.capture(model, padded_batch(), normal(B, 1), training=training)
    assert size == len(session().graph.get_operations())
    for leaf in tree.leaves:
        found += [float(leaf[f"certificate_{{part}}"].max()) for part in ("weights", "time")]
print(json.dumps(found))
"""


@pytest.mark.parametrize("v1", [False, True], ids=["layers of TensorFlow 2", "layers of TensorFlow 1"])
def test_certificates(v1: bool) -> None:
    root = str(Path(__file__).resolve().parents[2])
    program = PROGRAM.format(root=root, v1=v1)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    certificates = json.loads(done.stdout.splitlines()[-1])
    assert len(certificates) == 8
    assert max(certificates) < 1e-5
