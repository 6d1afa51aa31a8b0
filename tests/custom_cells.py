"""Recurrent cells as users write them, none of which has a closed form."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable("throughtime_tests")
class DecayCell(keras.layers.Layer):
    """h_t = tanh(x W + d·h_{t−1}) with one learned decay per unit."""

    def __init__(self, units: int, **config: Any) -> None:
        super().__init__(**config)
        self.units = self.state_size = units

    def build(self, shape: Any) -> None:
        self.kernel = self.add_weight(shape=(shape[-1], self.units), name="kernel")
        self.decay = self.add_weight(shape=(self.units,), name="decay")

    def call(self, x: Any, states: Any) -> Any:
        h = ops.tanh(ops.matmul(x, self.kernel) + self.decay * states[0])
        return h, [h]

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "units": self.units}


@keras.saving.register_keras_serializable("throughtime_tests")
class TwoStateCell(DecayCell):
    """A state of `units` and a narrow one beside it; what it hands out is neither."""

    def __init__(self, units: int, narrow: int = 2, **config: Any) -> None:
        super().__init__(units, **config)
        self.narrow = narrow
        self.state_size, self.output_size = [units, narrow], units

    def build(self, shape: Any) -> None:
        super().build(shape)
        self.mixing = self.add_weight(shape=(self.narrow, self.units), name="mixing")

    def call(self, x: Any, states: Any) -> Any:
        wide, narrow = states
        wide = ops.tanh(ops.matmul(x, self.kernel) + self.decay * wide + ops.matmul(narrow, self.mixing))
        narrow = 0.5 * narrow + ops.tanh(ops.matmul(wide, ops.transpose(self.mixing)))
        return 2 * wide + ops.matmul(narrow, self.mixing), [wide, narrow]

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "narrow": self.narrow}


@keras.saving.register_keras_serializable("throughtime_tests")
class NamedStatesCell(DecayCell):
    """Says what its states are; hands out the second."""

    state_names = ("fast", "slow")

    def __init__(self, units: int, **config: Any) -> None:
        super().__init__(units, **config)
        self.state_size = (units, units)

    def call(self, x: Any, states: Any) -> Any:
        fast = ops.tanh(ops.matmul(x, self.kernel) + self.decay * states[0])
        slow = 0.8 * states[1] + 0.2 * fast
        return slow, [fast, slow]


@keras.saving.register_keras_serializable("throughtime_tests")
class LayerNormLSTMCell(keras.layers.Layer):
    """An LSTM whose gates are normalised before their activation, by layers of its own."""

    def __init__(self, units: int, **config: Any) -> None:
        super().__init__(**config)
        self.units = units
        self.state_size = [units, units]
        self.gates = keras.layers.Dense(4 * units)
        self.normalisation = keras.layers.LayerNormalization()

    def build(self, shape: Any) -> None:
        self.gates.build((None, shape[-1] + self.units))
        self.normalisation.build((None, 4 * self.units))

    def call(self, x: Any, states: Any) -> Any:
        h, c = states
        z = self.normalisation(self.gates(ops.concatenate([x, h], -1)))
        i, f, g, o = ops.split(z, 4, -1)
        c = ops.sigmoid(f) * c + ops.sigmoid(i) * ops.tanh(g)
        h = ops.sigmoid(o) * ops.tanh(c)
        return h, [h, c]

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "units": self.units}


@keras.saving.register_keras_serializable("throughtime_tests")
class MemoryAttentionCell(DecayCell):
    """Reads from a fixed memory what is close to its state."""

    def build(self, shape: Any) -> None:
        super().build(shape)
        self.memory = self.add_weight(shape=(4, self.units), name="memory")

    def call(self, x: Any, states: Any) -> Any:
        attention = ops.softmax(ops.matmul(states[0], ops.transpose(self.memory)))
        h = ops.tanh(ops.matmul(x, self.kernel) + self.decay * ops.matmul(attention, self.memory))
        return h, [h]


@keras.saving.register_keras_serializable("throughtime_tests")
class FeatureAttentionCell(DecayCell):
    """Weighs the features of its input by its state, which it neither lists nor gets in a list."""

    def build(self, shape: Any) -> None:
        super().build(shape)
        self.query = self.add_weight(shape=(self.units, shape[-1]), name="query")

    def call(self, x: Any, states: Any, training: bool = False) -> Any:
        (h,) = keras.tree.flatten(states)
        attention = ops.softmax(ops.matmul(h, self.query))
        h = ops.tanh(ops.matmul(attention * x, self.kernel) + self.decay * h)
        return h, h
