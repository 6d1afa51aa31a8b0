"""Operations on a batch: count samples, check shapes, select, copy; whether its parts add up."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType

import numpy as np

from throughtime._errors import BatchError, LossError, ThroughTimeError
from throughtime.adapters.loss_reduction import TRAINING, of_loss
from throughtime.adapters.records import SUM, Array

from .contracts import Call, Model, T, Tensor
from .dialect import Dialect, Result
from .library import every_layer, numpy, shape_of
from .program import VALID_STEPS, Program

PAD = (
    "Pad it: x.to_tensor() gives zeros behind the shorter sequences; a Masking layer, or mask= where the "
    "recurrent layer is called, leaves them out."
)
_SIZES = "the inputs' first axes, {sizes}, are not all samples"
_STATEFUL = "the layer {name!r} is stateful and keeps a state for each sample of the batch"
_FIXED = "the model's input has a fixed batch size of {size}"
_ADDED = "layers add losses, with add_loss or an activity regulariser, from the whole batch"
_REGULARISED = "the loss is a sum over samples, and its regularisers are added once for each batch"
_MASKED = "masks reach the loss, so the steps over which it averages are unknown"


def batch_size(keras: Dialect, structure: object) -> int:
    """Return the number of samples in a structure of arrays."""
    return int(keras.tree.flatten(structure)[0].shape[0])


def check_sizes(keras: Dialect, x: object, y: object, sample_weight: object) -> None:
    """Raise LossError for labels or weights of another number of samples."""
    size = batch_size(keras, x)
    for name, structure in (("labels", y), ("sample_weight", sample_weight)):
        for array in keras.tree.flatten(structure) if structure is not None else ():
            shape = tuple(getattr(array, "shape", ()))
            if array is not None and (not shape or shape[0] != size):
                raise LossError(
                    f"x has {size} samples and {name} have shape {shape}: the first axes must agree."
                )


def mapped(tree: ModuleType, function: Call, structure: T) -> T:
    """Apply a function to every array; None stays None."""
    if structure is None:
        return structure
    return tree.map_structure(lambda each: None if each is None else function(each), structure)


def rows_of(keras: Dialect, structure: T, rows: Sequence[int]) -> T:
    """Take samples of every array."""
    return mapped(
        keras.tree, lambda array: _stacked(keras, [array[row : row + 1] for row in rows]), structure
    )


def joined(keras: Dialect, one: T, other: T) -> T:
    """Put the samples of two structures together."""
    return keras.tree.map_structure(lambda a, b: None if a is None else _stacked(keras, [a, b]), one, other)


def _stacked(keras: Dialect, arrays: Sequence[Tensor]) -> Tensor:
    is_array = isinstance(arrays[0], np.ndarray)  # Keras 2 makes tensors of a batch later
    return (np if is_array else keras.ops).concatenate(arrays, axis=0)


def with_copies(keras: Dialect, structure: T, size: int) -> T:
    """Replace every sample by the first; what has no sample axis stays, and what is not dense."""

    def copied(array: Tensor) -> Tensor:
        is_dense = type(array).__name__ not in ("RaggedTensor", "SparseTensor")
        has_samples = is_dense and len(array.shape) > 0 and array.shape[0] == size
        return _stacked(keras, [array[:1]] * size) if has_samples else array

    return mapped(keras.tree, copied, structure)


def first_array(keras: Dialect, structure: object) -> Array:
    """Bring the first array of a structure to NumPy, as floats."""
    return np.asarray(numpy(keras.tree.flatten(structure)[0]), float)


@contextmanager
def ragged_explained(keras: Dialect, x: object) -> Iterator[None]:
    """Raise BatchError with the remedy where a layer cannot take the ragged tensor it was given."""
    try:
        yield
    except ThroughTimeError:
        raise
    except Exception as error:
        if not any(map(is_ragged, keras.tree.flatten(x))):
            raise
        raise BatchError(
            f"The model cannot take a ragged tensor: {type(error).__name__}: {error}\n{PAD}"
        ) from error


def is_ragged(array: Tensor) -> bool:
    """Whether sequences of several lengths stand in one tensor."""
    return type(array).__name__ == "RaggedTensor"


def why_whole(keras: Dialect, model: Model, x: object, training: bool) -> str:
    """Return why parts would not add up; empty where model and inputs show no reason."""
    lengths = sorted({int(array.shape[0]) for array in keras.tree.flatten(x)})
    if len(lengths) > 1:
        return _SIZES.format(sizes=", ".join(map(str, lengths)))
    if training:
        return TRAINING
    stateful = [layer.name for layer in every_layer(model) if getattr(layer, "stateful", False)]
    if stateful:
        return _STATEFUL.format(name=stateful[0])
    inputs = keras.tree.flatten(getattr(model, "inputs", None) or [])
    sizes = [size for tensor in inputs if (size := shape_of(tensor)[0]) is not None]
    return _FIXED.format(size=sizes[0]) if sizes else ""


def why_unlike(program: Program, how: str) -> str:
    """Return why the loss, reduced as `how`, is no sum or mean of the losses of parts; empty where it is."""
    if program.adds_losses:
        return _ADDED
    if why := of_loss(how):
        return why
    if how == SUM:
        return _REGULARISED if program.keras.regularised(program.model) else ""
    is_clear = program.probe.loss.is_own_function or _averages_over_valid_steps(program)
    return "" if is_clear or not any(program.masked) else _MASKED


def weight(program: Program, result: Result, samples: int) -> float:
    """Tell what a batch counts for in a mean over several."""
    if VALID_STEPS in result.tensors and _averages_over_valid_steps(program):
        return float(numpy(result.tensors[VALID_STEPS]))
    return float(samples)


def _averages_over_valid_steps(program: Program) -> bool:
    is_declared = program.reductions.declared is not None and len(program.masked) == 1
    return program.keras.AVERAGES_OVER_VALID_STEPS and is_declared
