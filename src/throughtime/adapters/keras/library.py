"""Reads Keras' objects: which Keras one comes from, which layers it is made of, its tensors and variables.

Several copies of Keras may live in one process, and nothing here imports one before an object of it has been
seen: classes are known by their modules.
"""

from collections.abc import Sequence
from importlib import import_module
from types import ModuleType
from typing import Any

from throughtime._errors import UnbuiltModelError
from throughtime._inputs.structures import to_numpy
from throughtime.adapters.records import Array

from .contracts import Layer, Model, Shape, Tensor, Variable

# Attributes that Keras and torch only keep; the mode of a pass is an argument of its call.
_BOOKKEEPING = ("training", "stop_training", "_called", "built", "_is_compiled")
PACKAGES = ("tf_keras", "keras", "tensorflow.python.keras")


def package_of(kind: type) -> str:
    """Name the Keras 2 that a class is defined in; empty for a class of anybody else."""
    module = f"{kind.__module__}."
    return next((package for package in PACKAGES if module.startswith(f"{package}.")), "")


def package_of_object(thing: object) -> str:
    """Name the Keras 2 that an object belongs to, by the first of its classes that is from one."""
    return next(filter(None, map(package_of, type(thing).__mro__)), "")


def is_a(thing: object, *names: str) -> bool:
    """Whether an object is an instance of one of Keras' classes with these names."""
    return any(cls.__name__ in names and package_of(cls) for cls in type(thing).__mro__)


def is_layer(thing: object) -> bool:
    """Whether an object is a layer of any Keras 2; models and cells are layers as well."""
    return is_a(thing, "Layer")


def is_recurrent(layer: Layer) -> bool:
    """Whether something flows through time in a layer."""
    return is_a(layer, "RNN", "Bidirectional")


def internal(thing: object, name: str) -> ModuleType:
    """Import what the Keras 2 of an object does not publish, by its path below the sources."""
    package = package_of_object(thing)
    sources = package if package == PACKAGES[2] else f"{package}.src"
    return import_module(f"{sources}.{name}")


def belongs_to_a_graph(model: Model) -> bool:
    """Whether a model was made in TensorFlow 1's graph mode."""
    return any(cls.__module__.endswith(".base_layer_v1") for cls in type(model).__mro__)


def is_own(function: object, thing: object) -> bool:
    """Whether a function is defined in the same Keras 2 as an object."""
    return getattr(function, "__module__", "").startswith(f"{package_of_object(thing)}.")


def overrides(model: Model, method: str) -> bool:
    """Whether a model's class has its own version of a method of Keras' Model."""
    function = getattr(type(model), method, None)
    return function is not None and not is_own(function, model)


def check_built(model: Model, unbuilt: Sequence[str]) -> None:
    """Raise UnbuiltModelError for a model without weights, or with `unbuilt` layers in recurrent cells."""
    if not model.built:
        raise UnbuiltModelError(
            f"The model {model.name!r} is not built: it has no weights yet. Start it with "
            "keras.Input(shape), or call it once on a batch, model(x), before the capture."
        )
    if unbuilt:
        raise UnbuiltModelError(
            f"Keras builds {', '.join(unbuilt)}, inside a recurrent layer of {model.name!r}, when the layer "
            "first runs. Call the model once on a batch, model(x), before the capture."
        )


def called(model: Model, x: object, training: bool) -> object:
    """Call a model, in training or not where it makes a difference."""
    if getattr(model, "_call_has_training_arg", True):
        return model(x, training=training)
    return model(x)


def synchronise(model: Model) -> None:
    """Bring what training holds outside of a model into its variables: in Keras 3 on JAX, inside `fit`."""
    synchronises = getattr(model, "jax_state_sync", None)
    if synchronises is not None:
        synchronises()


def is_compiled(model: Model) -> bool:
    """Whether a model was compiled, with a loss or without."""
    flags = (getattr(model, name, False) for name in ("compiled", "_is_compiled"))
    return any(flags) or getattr(model, "optimizer", None) is not None


def execution(model: Model) -> tuple[bool, bool]:
    """Describe how a model was compiled to run: step by step, with XLA."""
    is_eager = bool(getattr(model, "run_eagerly", False))
    return is_eager, bool(getattr(model, "compiled", False) and model.jit_compile)


def compiled_losses(model: Model) -> Any:
    """Return what the last `compile` made of the losses, the same object until the next; None for nothing."""
    made = (getattr(model, name, None) for name in ("_compile_loss", "loss_functions", "compiled_loss"))
    return next((each for each in made if each is not None), None)


def sublayers(layer: Layer) -> list[Layer]:
    """Direct sublayers, in the order in which `model.layers` counts them."""
    if is_a(layer, "Model"):
        return list(layer.layers)
    return list(layer._flatten_layers(include_self=False, recursive=False))


def every_layer(model: Layer) -> list[Layer]:
    """Return the model and all layers and cells inside it; none for what is no layer."""
    if not is_layer(model):
        return []
    return list({id(layer): layer for layer in model._flatten_layers()}.values())


def halves(layer: Layer) -> tuple[Layer, ...]:
    """Return both layers of a Bidirectional, else the layer itself."""
    if is_a(layer, "Bidirectional"):
        return layer.forward_layer, layer.backward_layer
    return (layer,)


def plain_settings(model: Model) -> tuple[object, ...]:
    """Every plain setting and activation of every layer: a change of one changes what the model computes."""
    return tuple(
        frozenset(
            (name, id(value) if callable(value) else value)
            for name, value in vars(layer).items()
            if (isinstance(value, (bool, int, float, str)) and name not in _BOOKKEEPING)
            or (name.endswith("activation") and callable(value))
        )
        for layer in every_layer(model)
    )


def is_tensor(value: Tensor) -> bool:
    """Whether a value is one tensor."""
    return hasattr(value, "dtype") and hasattr(value, "shape")


def dtype_of(tensor: Tensor) -> str:
    """Name the dtype of a tensor or variable, of the latter as it is stored."""
    name = getattr(tensor.dtype, "name", str(tensor.dtype))
    return str(name).removeprefix("torch.").removesuffix("_ref")


def is_float(dtype: str) -> bool:
    """Whether tensors of a dtype can have a gradient."""
    return dtype.startswith(("float", "bfloat"))


def shape_of(tensor: Tensor | Array) -> Shape:
    """Return the shape of a tensor or variable, None where it is open."""
    shape = tensor.shape
    # Without TensorFlow 2's behaviour a shape is made of numbers of TensorFlow's own.
    return tuple(shape.as_list() if hasattr(shape, "as_list") else shape)


def numpy(tensor: object, *, copy: bool = False) -> Array:
    """Bring a tensor to NumPy; most arrays share the tensor's memory unless a copy is requested."""
    array = to_numpy(tensor)
    return array.copy() if copy and not array.flags.owndata else array


def path_of(variable: Variable) -> str:
    """Name a variable with its scopes, parted by slashes."""
    return str(getattr(variable, "path", None) or variable.name.partition(":")[0])
