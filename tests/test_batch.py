"""One batch is taken from whatever there is, and nothing else moves."""

import random
from collections import namedtuple
from contextlib import nullcontext

import numpy as np
import pytest

from throughtime import BatchError, ThroughTimeWarning
from throughtime._inputs.batch import running_on, take

X, Y = np.ones((4, 3, 2), "float32"), np.zeros((4, 1), "float32")


def test_arrays_dicts_and_tuples_are_kept_as_they_are():
    for data in (X, {"a": X, "b": X}, (X, X), [X, X]):
        batch = take(data, Y)
        assert batch.x is data or type(batch.x) is type(data)
        assert batch.origin == "the arrays given"


Pair = namedtuple("Pair", "data sizes")


def test_tuples_with_names_and_tuples_of_tuples_are_kept():
    batch = take(Pair(X, None), Y)
    assert isinstance(batch.x, Pair)
    assert batch.x.data is X
    states = (np.ones((1, 4, 3)), np.ones((1, 4, 3)))
    x, (h, c) = take((X, states), Y).x
    assert (x is X, h is states[0], c is states[1]) == (True, True, True)


def test_a_generator_loses_one_batch_and_says_so():
    generator = ((X + k, Y) for k in range(3))
    with pytest.warns(ThroughTimeWarning, match="only once"):
        batch = take(generator)
    assert batch.x[0, 0, 0] == 1
    assert next(generator)[0][0, 0, 0] == 2


class Drawing:
    """A dataset that uses the global generators, as a shuffling loader does."""

    def __iter__(self):
        random.random()
        yield X + np.random.rand(), Y, np.ones(4)


def test_random_states_are_put_back():
    before = random.getstate(), np.random.get_state()
    batch = take(Drawing())
    assert batch.sample_weight.shape == (4,)
    assert repr(before) == repr((random.getstate(), np.random.get_state()))


class Holding:
    """A dataset whose source, two steps away, draws from generators of its own."""

    def __init__(self):
        self.source = type("Source", (), {})()
        self.source.rng, self.source.old = np.random.default_rng(0), np.random.RandomState(0)
        self.python, self.module, self.itself = random.Random(0), np, self

    def draw(self):
        return self.python.random(), self.source.rng.random(), self.source.old.rand()

    def __iter__(self):
        self.draw()
        yield X, Y


def test_generators_that_a_dataset_holds_are_put_back():
    dataset = Holding()
    take(dataset)
    assert dataset.draw() == Holding().draw()


def test_a_reshuffling_dataset_is_named():
    tf = pytest.importorskip("tensorflow")
    data = tf.data.Dataset.from_tensor_slices((X, Y)).shuffle(4).batch(2)
    with pytest.warns(ThroughTimeWarning, match="reshuffles"):
        take(data)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ([[1.0, 2.0], [3.0]], "rectangular"),
        ([(X, Y), (X, Y)], "Pass one of them"),
        ([["a"]], "numbers"),
        (object(), "Cannot take"),
        (np.float32(3), "first axis"),
        (iter(()), "no batch"),
        ("series.csv", "'series.csv' is a name, not data"),
    ],
)
def test_what_gives_no_batch_says_why(data, says):
    with pytest.raises(BatchError, match=says):
        take(data)


def raising(module, error):
    """Make a function that raises an error in a frame of a module, as its own code does."""
    scope = {"__name__": module, "error": error}
    exec("def fail():\n    raise error", scope)
    return scope["fail"]


@pytest.mark.parametrize(
    ("module", "error"),
    [
        ("throughtime.adapters.torch.probe", KeyError("lstm")),
        ("throughtime.adapters.keras.loop", TypeError("ours")),
        ("throughtime._capture.probe", RuntimeError("ours")),
        ("users_model", RuntimeError("theirs")),
        ("torch.nn.modules.linear", MemoryError("out of memory")),
    ],
)
def test_an_error_of_ours_or_of_the_users_own_is_not_the_batchs(module, error):
    with pytest.raises(type(error)) as caught, running_on(take(X, Y)):
        raising(module, error)()
    assert caught.value is error


@pytest.mark.parametrize(
    ("module", "error"),
    [
        ("torch.nn.modules.linear", KeyError("layer")),
        ("keras.src.layers.input_spec", ValueError("ndim")),
    ],
)
def test_what_a_framework_refuses_names_the_batch(module, error):
    with (
        pytest.raises(BatchError, match=r"x: ndarray float32 \(4, 3, 2\); y: ndarray"),
        running_on(take(X, Y)),
    ):
        raising(module, error)()


def test_what_compiled_code_refuses_in_a_models_own_frame_names_the_batch():
    def own():  # RuntimeError of the interpreter, as torch's operators raise it
        growing = {1: 1}
        for key in growing:
            growing[key + 1] = 1

    with (
        pytest.raises(BatchError, match="RuntimeError: dictionary changed") as caught,
        running_on(take(X, Y)),
    ):
        own()
    assert isinstance(caught.value.__cause__, RuntimeError)


def test_what_a_model_raises_in_a_with_block_is_its_own():
    def own():
        with nullcontext():
            raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"), running_on(take(X, Y)):
        own()


def test_an_error_that_keras_raises_anew_is_still_the_frameworks():
    def layer():
        try:
            raising("jax.numpy", TypeError("dot"))()
        except TypeError:
            error = TypeError("Exception encountered when calling GRUCell.call()")
        raising("throughtime.adapters.keras.cell", error)()

    def anew():
        try:
            raising("jax.numpy", TypeError("dot"))()
        except TypeError:
            raise TypeError("Exception encountered when calling GRUCell.call()") from None

    with pytest.raises(TypeError, match="GRUCell"), running_on(take(X, Y)):
        layer()
    with pytest.raises(BatchError, match="GRUCell"), running_on(take(X, Y)):
        anew()
