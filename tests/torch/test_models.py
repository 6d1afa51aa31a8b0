"""Models compiled, parallel, scripted, checkpointed, in any precision and in any mode of the caller."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from tests.torch.comparison import difference
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils.checkpoint import checkpoint

import throughtime as tt

B, T, M, N = 3, 5, 2, 4
MSE = nn.MSELoss()
X = torch.randn(B, T, M, generator=torch.Generator().manual_seed(0))
Y = torch.randn(B, T, 1, generator=torch.Generator().manual_seed(1))


class Reader(nn.Module):
    def __init__(self, kind: Any = nn.LSTM, **options: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.rnn = kind(M, N, batch_first=True, **options)
        self.head = nn.Linear(N, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.rnn(x)[0])


def capture(model: nn.Module, x: Any = X, y: Any = Y, loss: Any = MSE, **options: Any) -> Any:
    return tt.capture(model, x, y, loss=loss, **options)


def assert_same_tree(tree: Any, other: Any, tolerance: float = 0.0) -> None:
    assert tree.groups == other.groups
    for leaf in tree.leaves:
        for name, variable in leaf.data_vars.items():
            assert difference(variable, other[leaf.path][name]) <= tolerance, f"{leaf.path} {name}"


def certificates(tree: Any) -> float:
    return max(
        float(leaf[name].max())
        for leaf in tree.leaves
        for name in ("certificate_weights", "certificate_time")
    )


# torch.compile's own: of torch 2.15, and of the very first Python 3.13.
@pytest.mark.filterwarnings(
    "ignore:The .grad attribute of a Tensor:UserWarning", "ignore:Guards may run slower:RuntimeWarning"
)
class TestWrapped:
    def test_a_compiled_model_is_captured_as_what_it_compiles(self) -> None:
        model = Reader()
        compiled = torch.compile(model, backend="eager")
        before = compiled(X)
        assert_same_tree(capture(compiled), capture(model))
        assert torch.equal(compiled(X), before)

    def test_a_model_compiled_in_place_stays_compiled(self) -> None:
        model, plain = Reader(), Reader()
        model.compile(backend="eager")
        compiled = model._compiled_call_impl
        assert_same_tree(capture(model), capture(plain))
        assert model._compiled_call_impl is compiled

    def test_a_compiled_part_has_the_path_of_what_it_compiles(self) -> None:
        model, plain = Reader(), Reader()
        model.rnn = torch.compile(model.rnn, backend="eager")
        model(X)
        assert_same_tree(capture(model), capture(plain))
        assert isinstance(model(X), torch.Tensor)

    def test_capturing_compiles_nothing_anew(self) -> None:
        graphs = []

        def backend(graph: Any, inputs: Any) -> Any:
            graphs.append(graph)
            return graph.forward

        model = Reader()
        compiled = torch.compile(model, backend=backend)
        compiled(X)
        count = len(graphs)
        capture(compiled)
        compiled(X)
        assert len(graphs) == count

    def test_a_distributed_model_is_captured_as_its_module(self) -> None:
        finished = subprocess.run(
            [sys.executable, "-W", "error", "-c", DISTRIBUTED], capture_output=True, text=True, check=False
        )
        assert finished.stdout.split() == ["same", "trains"], finished.stderr

    def test_a_data_parallel_model_is_captured_as_its_module(self) -> None:
        model = Reader()
        assert_same_tree(capture(nn.DataParallel(model)), capture(model))


DISTRIBUTED = """
import os, tempfile, warnings
import torch
from torch import nn
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
import throughtime as tt

warnings.filterwarnings("ignore", category=FutureWarning)
with tempfile.TemporaryDirectory() as folder:
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=0, world_size=1)
    torch.manual_seed(0)
    class Reader(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn, self.head = nn.GRU(2, 3, batch_first=True), nn.Linear(3, 1)
        def forward(self, x):
            return self.head(self.rnn(x)[0])
    model = Reader()
    parallel = DistributedDataParallel(model)
    x, y, loss = torch.randn(4, 5, 2), torch.randn(4, 5, 1), nn.MSELoss()
    plain = tt.capture(model, x, y, loss=loss)
    captured = tt.capture(parallel, x, y, loss=loss)
    nested = tt.capture(nn.Sequential(parallel), x, y, loss=loss)
    same = all(
        captured["rnn"][name].equals(plain["rnn"][name]) and nested["0/rnn"][name].equals(plain["rnn"][name])
        for name in plain["rnn"].data_vars
    )
    print("same" if same else "different")
    for _ in range(2):
        loss(parallel(x), y).backward()
        tt.capture(parallel, x, y, loss=loss)
    print("trains")
    dist.destroy_process_group()
"""


def scripted(module: nn.Module) -> nn.Module:
    with pytest.warns((DeprecationWarning, FutureWarning), match="torch.jit"):
        return torch.jit.script(module)


class TestScripted:
    def test_a_scripted_model_is_refused_with_the_way_out(self) -> None:
        with pytest.raises(tt.UnsupportedModelError, match=r"TorchScript.*load_state_dict"):
            capture(scripted(Reader()))

    def test_a_scripted_layer_of_a_model_is_told(self) -> None:
        with pytest.raises(tt.LayerNotFoundError, match="inside a TorchScript module cannot be captured"):
            capture(nn.Sequential(scripted(Reader()), nn.Linear(1, 1)))

    def test_a_scripted_part_beside_a_layer_does_not_hinder(self) -> None:
        model, plain = Reader(), Reader()
        model.head = scripted(model.head)
        assert_same_tree(capture(model, layers="all"), capture(plain, layers="all"), 1e-6)


class TestModesOfTheCaller:
    def test_gradients_are_there_where_the_caller_has_switched_them_off(self) -> None:
        model = Reader()
        expected = capture(model)
        with torch.no_grad():
            assert_same_tree(capture(model), expected)
            assert not torch.is_grad_enabled()
        with torch.inference_mode():
            assert_same_tree(capture(model, X.clone(), Y.clone()), expected)
            assert torch.is_inference_mode_enabled()

    def test_a_model_made_in_inference_mode(self) -> None:
        with torch.inference_mode():
            model = Reader()
        assert_same_tree(capture(model), capture(Reader()))

    @pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
    def test_a_layer_run_without_gradients_by_the_model_has_them(self, mode: Callable[[], Any]) -> None:
        class Frozen(Reader):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                with mode():
                    sequence = self.rnn(2 * x)[0]
                return self.head(sequence.clone())

        class Plain(Reader):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return self.head(self.rnn(2 * x)[0])

        assert_same_tree(capture(Frozen()), capture(Plain()))

    def test_evaluation_and_training_mode_are_the_captures_own(self) -> None:
        class Dropping(Reader):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return self.head(nn.functional.dropout(self.rnn(x)[0], 0.5, self.training))

        model = Dropping()
        for mode in (True, False):
            model.train(mode)
            assert (capture(model)["rnn"]["output_gradient"] == 0).sum() == 0
            dropped = capture(model, training=True)["rnn"]["output_gradient"] == 0
            assert 0.2 < float(dropped.mean()) < 0.8
            assert model.training == mode

    def test_a_part_held_in_evaluation_stays_so_while_the_rest_trains(self) -> None:
        model = nn.Sequential(Reader(), nn.Dropout(0.9)).train()
        model[1].eval()
        assert_same_tree(capture(model, training=True), capture(model))


class Watching(TorchFunctionMode):
    """Sees how torch's fused kernel is called."""

    def __init__(self) -> None:
        super().__init__()
        self.settings: list[Any] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch._VF.lstm and args[4] == 1:
            self.settings.append(args[3:])
        return func(*args, **(kwargs or {}))


def test_the_kernel_is_told_to_train_without_dropout_since_cudnn_demands_it() -> None:
    model = Reader(num_layers=2, dropout=0.5).eval()
    with Watching() as watching:
        capture(model)
    biases, layers, dropout, train, bidirectional, batch_first = True, 1, 0.0, True, False, False
    assert watching.settings == [(biases, layers, dropout, train, bidirectional, batch_first)] * 2


class TestDropoutBetweenLayers:
    def test_it_is_off_in_evaluation(self) -> None:
        tree = capture(Reader(num_layers=2, dropout=0.5))
        np.testing.assert_array_equal(tree["rnn/1"]["input"], tree["rnn/0"]["output"])

    def test_it_acts_on_what_the_next_layer_reads_in_training(self) -> None:
        tree = capture(Reader(num_layers=2, dropout=0.5), training=True)
        before, after = tree["rnn/0"]["output"].values, tree["rnn/1"]["input"].values
        kept = after != 0
        assert 0.2 < kept.mean() < 0.8
        np.testing.assert_allclose(after[kept], 2 * before[kept], rtol=1e-6)
        assert certificates(tree) <= 1e-5


class TestPrecision:
    @pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
    def test_autocast_of_the_caller_is_the_captures_precision(self, kind: Any) -> None:
        model = Reader(kind)
        with torch.autocast("cpu", torch.bfloat16):
            tree = capture(model)
            assert torch.is_autocast_cache_enabled()
        assert tree["rnn"].attrs["dtype"] == "bfloat16"
        assert certificates(tree) <= 5e-2
        exact = capture(model)["rnn"]["hidden_gradient"]
        assert 1e-4 < difference(tree["rnn"]["hidden_gradient"], exact) < 5e-2
        assert tree.attrs["loss_reduction"] == "mean over samples"

    @pytest.mark.parametrize("kind", [nn.LSTMCell, nn.GRUCell, nn.RNNCell])
    def test_autocast_reaches_cells(self, kind: Any) -> None:
        class Loop(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.cell = kind(M, N)

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                state = None
                for step in x.unbind(1):
                    state = self.cell(step, state)
                return (state[0] if isinstance(state, tuple) else state)[:, :1]

        with torch.autocast("cpu", torch.bfloat16):
            tree = capture(Loop(), y=Y[:, 0])
        assert tree["cell"].attrs["dtype"] == "bfloat16"
        assert certificates(tree) <= 5e-2

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    @pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
    def test_a_model_in_half_precision(self, kind: Any, dtype: torch.dtype) -> None:
        tree = capture(Reader(kind).to(dtype), X.to(dtype), Y.to(dtype))
        assert certificates(tree) <= {torch.float16: 1e-2, torch.bfloat16: 5e-2}[dtype]
        exact = capture(Reader(kind))["rnn"]["hidden_gradient"]
        assert difference(tree["rnn"]["hidden_gradient"], exact) < 5e-2

    @pytest.mark.parametrize("size", [1e-6, 1e6])
    def test_gradients_beyond_the_range_of_float16_are_there(self, size: float) -> None:
        def loss(output: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return size * (output.float() - y.float()).square().mean()

        half = capture(Reader(nn.GRU).half(), X.half(), Y.half(), loss)["rnn"]["hidden_gradient"]
        assert half.dtype == "float32"
        assert difference(half, capture(Reader(nn.GRU), X, Y, loss)["rnn"]["hidden_gradient"]) < 2e-2

    def test_layers_of_one_model_may_differ_in_precision(self) -> None:
        class Mixed(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                torch.manual_seed(0)
                self.lower = nn.LSTM(M, N, batch_first=True).double()
                self.upper = nn.GRU(N, 1, batch_first=True)

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return self.upper(self.lower(x)[0].float())[0]

        tree = capture(Mixed(), X.double())
        assert [tree[path].attrs["dtype"] for path in ("lower", "upper")] == ["float64", "float32"]
        assert tree["lower"]["hidden"].dtype == "float64"
        assert float(tree["lower"]["certificate_time"]) <= 1e-12

    def test_a_scaled_loss_between_its_backward_and_its_step_is_left_alone(self) -> None:
        model, scaler = Reader(), torch.amp.GradScaler("cpu", init_scale=1024.0)
        scaler.scale(MSE(model(X), Y)).backward()
        before = [weight.grad.clone() for weight in model.parameters()]
        tree = capture(model)
        assert all(torch.equal(a, w.grad) for a, w in zip(before, model.parameters(), strict=True))
        assert scaler.get_scale() == 1024.0
        received = tree["rnn"]["recurrent_kernel_gradient"].transpose("gate", "unit", "unit_from")
        np.testing.assert_allclose(
            received.values.reshape(4 * N, N) * 1024.0, before[1], rtol=1e-4, atol=1e-5
        )


class TestCheckpointing:
    def test_a_layer_run_again_for_its_gradient_is_seen_once(self) -> None:
        class Checkpointed(Reader):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return self.head(checkpoint(lambda x: self.rnn(x)[0], x, use_reentrant=False))

        assert_same_tree(capture(Checkpointed()), capture(Reader()))

    def test_a_cell_in_a_checkpointed_loop(self) -> None:
        class Loop(nn.Module):
            def __init__(self, again: bool) -> None:
                super().__init__()
                torch.manual_seed(0)
                self.cell, self.again = nn.LSTMCell(M, 1), again

            def steps(self, x: torch.Tensor) -> torch.Tensor:
                state, outputs = None, []
                for step in x.unbind(1):
                    state = self.cell(step, state)
                    outputs.append(state[0])
                return torch.stack(outputs, 1)

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return checkpoint(self.steps, x, use_reentrant=False) if self.again else self.steps(x)

        assert_same_tree(capture(Loop(True)), capture(Loop(False)))


class TestWeights:
    def test_frozen_weights_have_the_gradients_that_others_have(self) -> None:
        frozen = Reader().requires_grad_(False)
        tree = capture(frozen, layers="all")
        assert_same_tree(tree, capture(Reader(), layers="all"))
        assert tree["rnn"].attrs["trainable"] == 0

    def test_a_penalty_on_weights_is_in_what_the_optimizer_receives(self) -> None:
        model = Reader(nn.GRU)

        def penalised(output: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return MSE(output, y) + 0.1 * model.rnn.weight_hh_l0.square().sum()

        tree, plain = capture(model, loss=penalised), capture(model)
        added = tree["rnn"]["recurrent_kernel_gradient"] - plain["rnn"]["recurrent_kernel_gradient"]
        np.testing.assert_allclose(added, 0.2 * plain["rnn"]["recurrent_kernel"], rtol=1e-4, atol=1e-6)
        assert certificates(tree) <= 1e-5

    def test_a_weight_that_two_layers_share_has_one_gradient(self) -> None:
        class Tied(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                torch.manual_seed(0)
                self.embedding, self.rnn = nn.Embedding(7, N), nn.GRU(N, N, batch_first=True)
                self.head = nn.Linear(N, 7, bias=False)
                self.head.weight = self.embedding.weight

            def forward(self, tokens: torch.Tensor) -> torch.Tensor:
                return self.head(self.rnn(self.embedding(tokens))[0])

        model, tokens = Tied(), torch.arange(B * T).reshape(B, T) % 7

        def loss(output: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return nn.functional.cross_entropy(output.flatten(0, 1), y.flatten())

        tree = capture(model, tokens, tokens, loss, layers="all")
        loss(model(tokens), tokens).backward()
        for path in ("embedding", "head"):
            np.testing.assert_allclose(tree[path]["weight_gradient"], model.head.weight.grad, atol=1e-6)
        assert "missing_input_gradient" not in tree["rnn"].attrs
        assert tree["embedding"].attrs["kind"] == "embedding"


class TestCellsInLoops:
    def test_calls_that_alternate_between_two_sequences_make_two_leaves(self) -> None:
        class TwoLoops(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                torch.manual_seed(0)
                self.cell = nn.GRUCell(M, 1)

            def forward(self, x: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
                left = right = None
                for a, b in zip(x.unbind(1), z.unbind(1), strict=True):
                    left, right = self.cell(a, left), self.cell(b, right)
                return left * right

        model, z = TwoLoops(), X.flip(0)
        tree = capture(model, (X, z), Y[:, 0])
        assert tree.attrs["order_of_calls"] == "cell, cell@2"
        layer = nn.GRU(M, 1, batch_first=True)
        layer.load_state_dict({f"{name}_l0": weight for name, weight in model.cell.state_dict().items()})

        class Twice(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.cell = layer

            def forward(self, x: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
                return self.cell(x)[0][:, -1] * self.cell(z)[0][:, -1]

        whole = capture(Twice(), (X, z), Y[:, 0])
        for path in ("cell", "cell@2"):
            for name in set(whole[path].data_vars) - {"certificate_weights", "certificate_time"}:
                assert difference(tree[path][name], whole[path][name]) <= 1e-5, name
        assert certificates(tree) <= 1e-5

    def test_a_state_that_is_cut_off_is_an_edge_of_the_leaf(self) -> None:
        class Truncated(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                torch.manual_seed(0)
                self.cell = nn.LSTMCell(M, 1)

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                state, outputs = None, []
                for t, step in enumerate(x.unbind(1)):
                    if t == 2:
                        state = tuple(part.detach() for part in state)
                    state = self.cell(step, state)
                    outputs.append(state[0])
                return torch.stack(outputs, 1)

        tree = capture(Truncated())
        assert [(leaf.path, leaf.sizes["time"]) for leaf in tree.leaves] == [("/cell", 5)]
        assert ((tree["cell"]["carried_gradient"] == 0) == [False, True, False, False, True]).all()
        assert not tree["cell"]["reset"].any()
        assert tree["cell"].attrs["time"] == "the order of the module's calls"
        assert certificates(tree) <= 1e-5

    def test_what_a_loop_reads_of_the_state_beside_the_cell_is_output_gradient(self) -> None:
        """The next input depends on the state: that is what others ask of it, not the recurrence."""

        class Feeding(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                torch.manual_seed(0)
                self.cell, self.back = nn.GRUCell(M, N), nn.Linear(N, M)

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                state, step = None, x[:, 0]
                for _ in range(T):
                    state = self.cell(step, state)
                    step = self.back(state)
                return step

        tree = capture(Feeding(), y=torch.zeros(B, M))
        asked = tree["cell"]["output_gradient"]
        assert (np.abs(asked).max(("sample", "output_unit")) > 1e-6).all()
        assert certificates(tree) <= 1e-5

    def test_a_state_written_in_place_counts_as_changed(self) -> None:
        class Writing(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                torch.manual_seed(0)
                self.cell = nn.GRUCell(M, 1)

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                state = None
                for step in x.unbind(1):
                    state = self.cell(step, state)
                    state.mul_(0.5)
                return state

        tree = capture(Writing(), y=Y[:, 0])
        assert tree["cell"].attrs["states_changed"] == 1
        asked = np.abs(tree["cell"]["output_gradient"].values).sum((0, 2))
        assert asked[-1] > 0
        assert not asked[:-1].any()
        assert certificates(tree) <= 1e-5


def test_a_graph_module_keeps_the_layers_that_it_calls() -> None:
    model = Reader()
    assert_same_tree(capture(torch.fx.symbolic_trace(model)), capture(model))


def test_a_subclass_with_a_forward_of_its_own_is_looked_into() -> None:
    class Flipping(nn.LSTM):
        def forward(self, x: torch.Tensor) -> Any:
            return super().forward(x.flip(1))[0].flip(1), None

    tree = capture(Reader(Flipping))
    np.testing.assert_array_equal(tree["rnn"]["input"], X.flip(1))
    assert certificates(tree) <= 1e-5
