"""Steps of Keras' LSTM, GRU and SimpleRNN, after one product of all inputs with the input kernel.

One product takes the inputs of all steps, and autodiff finds the gradients of kernel and input in one product
each, where a loop would add them up step by step. The layer's own loop checks the result.
"""

from collections.abc import Callable, Sequence

from . import cell as cells
from .contracts import Layer, Tensor
from .dialect import Dialect
from .library import dtype_of, shape_of

# (name, new, past) -> what the loop keeps of a state: the past where nothing is valid, and a zero added
Kept = Callable[[str, Tensor, Tensor], Tensor]


def entering(keras: Dialect, layer: Layer, x: Tensor, training: bool) -> Tensor | None:
    """Multiply inputs (time, sample, feature) by the kernel of a layer's only cell, and add the cell's bias.

    None if the cell does something else with its input, or computes in another precision than its weights.
    """
    ops, cell = keras.ops, layer.cell
    is_standard = cells.standard_kind(cell) in cells.PRODUCTS and cells.is_called_as_defined(cell)
    if not is_standard or cells.drops(cell, training):
        return None
    known = {dtype_of(x), *map(dtype_of, cell.weights), *map(keras.compute_dtype, (layer, cell))}
    if known not in ({"float32"}, {"float64"}):
        return None
    flat = ops.matmul(ops.reshape(x, (-1, shape_of(x)[-1])), cell.kernel)
    if cell.use_bias:
        flat = flat + (cell.bias[0] if getattr(cell, "reset_after", False) else cell.bias)
    return ops.reshape(flat, (*ops.shape(x)[:2], shape_of(flat)[-1]))


def step(keras: Dialect, cell: Layer, x: Tensor, old: Sequence[Tensor], kept: Kept) -> cells.Stepped:
    """Run a cell for one step on the result of `entering`; gates are in the order of the schema."""
    ops, hidden, kernel = keras.ops, old[0], cell.recurrent_kernel
    kind = cells.standard_kind(cell)
    if kind == "gru":
        return _gru(keras, cell, x, hidden, kept)
    z = x + ops.matmul(hidden, kernel)
    if kind == "simple_rnn":
        gate = cell.activation(z)
        new = kept("hidden", gate, hidden)
        return cells.Stepped(new, [new], [gate])
    i, f, g, o = ops.split(z, 4, axis=1)
    i, f, o = map(cell.recurrent_activation, (i, f, o))
    g = cell.activation(g)
    carried = kept(cells.CELL, f * old[1] + i * g, old[1])
    new = kept("hidden", o * cell.activation(carried), hidden)
    return cells.Stepped(new, [new, carried], [i, f, g, o])


def _gru(keras: Dialect, cell: Layer, x: Tensor, hidden: Tensor, kept: Kept) -> cells.Stepped:
    ops, units, kernel = keras.ops, cell.units, cell.recurrent_kernel
    x_z, x_r, x_h = ops.split(x, 3, axis=1)
    inner = ops.matmul(hidden, kernel if cell.reset_after else kernel[:, : 2 * units])
    if cell.use_bias and cell.reset_after:
        inner = inner + cell.bias[1]
    # The gradient of a split is one array, that of each slice an array with zeros around it.
    inner_z, inner_r, *inner_h = ops.split(inner, 3 if cell.reset_after else 2, axis=1)
    z = cell.recurrent_activation(x_z + inner_z)
    r = cell.recurrent_activation(x_r + inner_r)
    product = r * inner_h[0] if cell.reset_after else ops.matmul(r * hidden, kernel[:, 2 * units :])
    candidate = cell.activation(x_h + product)
    new = kept("hidden", z * hidden + (1 - z) * candidate, hidden)
    return cells.Stepped(new, [new], [z, r, candidate])
