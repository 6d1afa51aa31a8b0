"""Plain strings and numbers that a reader of the tree needs: of a whole capture, of a layer, of a cell."""

from __future__ import annotations

from typing import TYPE_CHECKING

from throughtime.adapters.axes import alignment
from throughtime.adapters.loss_reduction import attributes_of
from throughtime.adapters.records import Attribute

from .contracts import Layer
from .dialect import Dialect
from .library import every_layer, is_a, overrides

if TYPE_CHECKING:
    from .collect import Pass

_OTHER_TIME = ("Cropping1D", "Flatten", "Permute", "RepeatVector", "Reshape", "UpSampling1D", "ZeroPadding1D")


def of_capture(
    done: Pass, reduced: tuple[float, str] | None, *, called: list[str], absent: list[str]
) -> dict[str, Attribute]:
    """Gather what holds for all layers; `called` and `absent` are paths of the layers asked for."""
    attributes: dict[str, Attribute] = {
        **done.keras.of_framework(done.model),
        "training": int(done.program.request.training),
        "order_of_calls": ", ".join(called),
        "output_axes": done.program.output_axes,
        **attributes_of(reduced),
    }
    if regularised := dict.fromkeys(done.keras.regularised(done.model)):
        attributes["regularised"] = (
            f"{', '.join(regularised)}: regularisers are part of loss and weight gradients, not of what "
            "single steps contribute"
        )
    if done.program.adds_losses:
        attributes["added_losses"] = "losses that layers add are part of the loss, as they are"
    if reduced is not None and overrides(done.model, "train_step"):
        attributes["train_step"] = "the model's own train_step was not run: the loss is that of compute_loss"
    if done.keras.RUNS_WITHOUT_XLA and getattr(done.model, "_jit_compile", False):
        attributes["jit_compile"] = "the pass ran without XLA, whose results differ in the last digits"
    if absent:
        attributes["not_called"] = ", ".join(absent)
    breaking = filter(_breaks_time, every_layer(done.model))
    attributes["time"] = alignment([f"{layer.name} ({type(layer).__name__})" for layer in breaking])
    return attributes


def of_layer(keras: Dialect, layer: Layer) -> dict[str, Attribute]:
    """Read a layer's flags; those of a Bidirectional are its forward layer's."""
    flags: dict[str, Attribute] = {"layer_name": layer.name, "layer_class": type(layer).__name__}
    inner = getattr(layer, "forward_layer", layer)
    for name in ("return_sequences", "go_backwards", "stateful", "units", "zero_output_for_mask"):
        if isinstance(getattr(inner, name, None), (bool, int)):
            flags[name] = int(getattr(inner, name))
    flags.update(of_cell(keras, getattr(inner, "cell", None)))
    if is_a(layer, "Bidirectional"):
        flags["merge_mode"] = str(layer.merge_mode)
    flags.update(trainable=int(layer.trainable), dtype=keras.compute_dtype(layer))
    flags["output_reversed"] = int(returns_reversed(layer))
    return flags


def of_cell(keras: Dialect, cell: Layer | None) -> dict[str, Attribute]:
    """Read the flags of one cell: its class, activations, and where a GRU resets."""
    if cell is None:
        return {}
    flags: dict[str, Attribute] = {"cell_class": type(cell).__name__}
    for name in ("activation", "recurrent_activation"):
        function = getattr(cell, name, None)
        if function is not None:
            flags[name] = keras.activation_name(cell, function)
    if getattr(cell, "reset_after", None) is not None:
        flags["reset_after"] = int(cell.reset_after)
    return flags


def returns_reversed(layer: Layer) -> bool:
    """Whether the layer's output sequence runs against its input's time."""
    return bool(getattr(layer, "go_backwards", False) and getattr(layer, "return_sequences", False))


def _breaks_time(layer: Layer) -> bool:
    """Whether step t of the layer's output is not step t of its input: strides, pooling, reversed outputs."""
    if returns_reversed(layer) or type(layer).__name__ in _OTHER_TIME:
        return True
    if hasattr(layer, "state_size"):  # a convolution inside a recurrent cell is one over space
        return False
    if getattr(layer, "rank", None) != 1 and not hasattr(layer, "pool_size"):
        return False
    shortens = getattr(layer, "padding", "same") == "valid" and getattr(layer, "kernel_size", (1,)) != (1,)
    return shortens or getattr(layer, "strides", (1,)) not in (1, (1,))
