"""Recurrences that nobody registered: modules that a model calls again with what they returned.

The oracle adds a zero to each state where the module makes it, and differentiates with respect to those.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from tests.torch.comparison import difference
from tests.torch.rows import normal, seeded
from torch import nn
from torch.utils.checkpoint import checkpoint

import throughtime as tt

B, T, M, N, K = 3, 6, 2, 4, 1
MSE = nn.MSELoss()
X, Y = normal(B, T, M), normal(B, T, K, seed=7)


class Noting(nn.Module):
    """A module whose states a test can reach as they are made."""

    def note(self, name: str, value: torch.Tensor) -> torch.Tensor:
        return value


class LeakyRNN(Noting):
    """A continuous-time RNN in Euler steps."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.again = nn.Linear(M, N), nn.Linear(N, N)

    def forward(self, x: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
        return self.note("hidden", h + 0.3 * (torch.tanh(self.enter(x) + self.again(h)) - h))


class MinGRU(Noting):
    def __init__(self) -> None:
        super().__init__()
        self.gate, self.candidate = nn.Linear(M, N), nn.Linear(M, N)

    def forward(self, x: torch.Tensor, h: torch.Tensor | None = None) -> torch.Tensor:
        z = self.gate(x).sigmoid()
        kept = 0 if h is None else (1 - z) * h
        return self.note("hidden", kept + z * self.candidate(x))


class WrittenLSTM(Noting):
    """An LSTM written out, with the weights of torch's."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.again = nn.Linear(M, 4 * N), nn.Linear(N, 4 * N)

    def forward(self, x: torch.Tensor, state: Any) -> Any:
        h, c = state
        i, f, g, o = (self.enter(x) + self.again(h)).chunk(4, -1)
        c = self.note("cell", f.sigmoid() * c + i.sigmoid() * g.tanh())
        return self.note("hidden", o.sigmoid() * c.tanh()), c


class SLSTM(Noting):
    """The scalar LSTM of Beck et al. 2024, with its normalizer and its stabilizer."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.again = nn.Linear(M, 4 * N), nn.Linear(N, 4 * N)

    def forward(self, x: torch.Tensor, h: Any, c: Any, n: Any, m: Any) -> Any:
        i, f, z, o = (self.enter(x) + self.again(h)).chunk(4, -1)
        log_f = nn.functional.logsigmoid(f)
        highest = self.note("state_3", torch.maximum(log_f + m, i))
        keeps, enters = (log_f + m - highest).exp(), (i - highest).exp()
        c = self.note("cell", keeps * c + enters * z.tanh())
        n = self.note("state_2", keeps * n + enters)
        h = self.note("hidden", o.sigmoid() * c / n)
        return h, c, n, highest


class Nested(Noting):
    """Two cells one above the other, each a module of a user's."""

    def __init__(self) -> None:
        super().__init__()
        self.low, self.high = LeakyRNN(), MinGRU()
        self.high.gate, self.high.candidate = nn.Linear(N, N), nn.Linear(N, N)

    def forward(self, x: torch.Tensor, states: list[torch.Tensor]) -> Any:
        low = self.note("hidden", self.low(x, states[0]))
        return [low, self.note("cell", self.high(low, states[1]))]


class ByKeyword(LeakyRNN):
    def forward(self, x: torch.Tensor, *, mask: Any = None, memory: Any = None) -> Any:  # type: ignore[override]
        return {"memory": super().forward(x, memory["h"])}


class Loop(nn.Module):
    """Calls a cell for each step; `between` is what happens to the state before the next call."""

    def __init__(self, cell: nn.Module, width: int = N) -> None:
        super().__init__()
        self.cell, self.head = cell, nn.Linear(width, K)

    def between(self, state: torch.Tensor, step: int) -> torch.Tensor:
        return state

    def call(self, x: torch.Tensor, state: Any) -> tuple[torch.Tensor, Any]:
        state = self.cell(x, state)
        return state, state

    def start(self, x: torch.Tensor) -> Any:
        return x.new_zeros(len(x), N)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        state, outputs = self.start(x), []
        for step, entering in enumerate(x.unbind(1)):
            output, state = self.call(entering, state)
            outputs.append(self.head(output))
            state = _each(lambda one, step=step: self.between(one, step), state)
        return torch.stack(outputs, 1)


def _each(function: Callable[..., Any], state: Any) -> Any:
    if isinstance(state, torch.Tensor):
        return function(state)
    if isinstance(state, dict):
        return {name: function(one) for name, one in state.items()}
    return type(state)(function(one) for one in state)


class WithoutStart(Loop):
    def start(self, x: torch.Tensor) -> Any:
        return None


class OfPairs(Loop):
    def start(self, x: torch.Tensor) -> Any:
        return x.new_zeros(len(x), N), x.new_zeros(len(x), N)

    def call(self, x: torch.Tensor, state: Any) -> tuple[torch.Tensor, Any]:
        state = self.cell(x, state)
        return state[0], state


class OfLists(OfPairs):
    def call(self, x: torch.Tensor, state: Any) -> tuple[torch.Tensor, Any]:
        state = self.cell(x, list(state))
        return state[1], state


class OfFour(Loop):
    def start(self, x: torch.Tensor) -> Any:
        zeros = x.new_zeros(len(x), N)
        return zeros, zeros, zeros, zeros - 10

    def call(self, x: torch.Tensor, state: Any) -> tuple[torch.Tensor, Any]:
        state = self.cell(x, *state)
        return state[0], state


class OfKeywords(Loop):
    def call(self, x: torch.Tensor, state: Any) -> tuple[torch.Tensor, Any]:
        state = self.cell(x, memory={"h": state})["memory"]
        return state, state


class Masked(Loop):
    """Samples that have finished keep their state."""

    def call(self, x: torch.Tensor, state: Any) -> tuple[torch.Tensor, Any]:
        running = x[:, :1] > -0.5
        state = torch.where(running, self.cell(x, state), state)
        return state, state


CASES: dict[str, tuple[Callable[[], nn.Module], tuple[str, ...]]] = {
    "leaky": (lambda: Loop(LeakyRNN()), ("hidden",)),
    "min_gru": (lambda: WithoutStart(MinGRU()), ("hidden",)),
    "written_lstm": (lambda: OfPairs(WrittenLSTM()), ("hidden", "cell")),
    "s_lstm": (lambda: OfFour(SLSTM()), ("hidden", "cell", "state_2", "state_3")),
    "nested": (lambda: OfLists(Nested()), ("hidden", "cell")),
    "keywords": (lambda: OfKeywords(ByKeyword()), ("hidden",)),
    "early_exit": (lambda: Masked(LeakyRNN()), ("hidden",)),
}


def expected(
    model: nn.Module, states: tuple[str, ...], x: torch.Tensor = X, y: torch.Tensor = Y
) -> dict[str, np.ndarray]:
    """Values of the states, and their gradients of each sample's own loss."""
    values: dict[str, list[torch.Tensor]] = {name: [] for name in states}
    zeros: dict[str, list[torch.Tensor]] = {name: [] for name in states}

    def note(name: str, value: torch.Tensor) -> torch.Tensor:
        values[name].append(value)
        zeros[name].append(torch.zeros_like(value, requires_grad=True))
        return value + zeros[name][-1]

    model.cell.note = note
    try:
        loss = MSE(model(x), y) * len(x)
    finally:
        del model.cell.note
    found = {name: torch.stack(each, 1).detach().numpy() for name, each in values.items()}
    for name in states:
        gradients = torch.autograd.grad(loss, zeros[name], retain_graph=True, allow_unused=True)
        pairs = zip(gradients, zeros[name], strict=True)
        each = [torch.zeros_like(zero) if one is None else one for one, zero in pairs]
        found[f"{name}_gradient"] = torch.stack(each, 1).numpy()
    return found


def capture(model: nn.Module, x: Any = X, y: Any = Y, **options: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return tt.capture(model, x, y, loss=MSE, **options)


@pytest.mark.parametrize("name", CASES)
class TestAnyModuleThatIsCalledAgainWithWhatItReturned:
    def test_its_states_and_their_gradients_are_those_of_autograd(self, name: str) -> None:
        build, states = CASES[name]
        model = seeded(build())
        leaf = capture(model)["cell"]
        assert leaf.attrs["states"] == ", ".join(states)
        found = expected(model, states)
        largest = np.abs(found["hidden_gradient"]).max()  # a stabilizer's is 0 but for rounding
        for variable, values in found.items():
            error = np.abs(leaf[variable].values - values).max()
            assert error <= 1e-12 * max(largest, np.abs(values).max()), variable

    def test_the_model_has_one_recurrent_layer_with_a_certificate(self, name: str) -> None:
        tree = capture(seeded(CASES[name][0]()))
        assert [leaf.path for leaf in tree.leaves] == ["/cell"]
        assert float(tree["cell"]["certificate_time"]) <= 1e-12

    def test_weights_and_inputs_have_the_gradients_of_training(self, name: str) -> None:
        model = seeded(CASES[name][0]())
        leaf = capture(model)["cell"]
        MSE(model(X), Y).backward()
        for weight, parameter in model.cell.named_parameters():
            found = leaf[f"{weight.replace('.', '_')}_gradient"]
            assert difference(found, parameter.grad.numpy()) <= 1e-12, weight
        x = X.clone().requires_grad_()
        (of_input,) = torch.autograd.grad(MSE(model(x), Y) * B, x)
        assert difference(leaf["input_gradient"], of_input.numpy()) <= 1e-12
        assert difference(leaf["input"], X.numpy()) == 0.0


def test_gradient_that_passes_by_the_states_fails_the_certificate() -> None:
    class Hiding(LeakyRNN):
        def forward(self, x: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
            h = super().forward(x, h + 0.5 * getattr(self, "secret", 0.0))
            self.secret = h
            return h

    model = seeded(Loop(Hiding()))
    with pytest.warns(tt.ThroughTimeWarning, match="certificate of cell"):
        tt.capture(model, X, Y, loss=MSE)
    assert not hasattr(model.cell, "secret")


def test_the_written_lstm_has_the_tree_of_torchs_cell() -> None:
    model = seeded(OfPairs(WrittenLSTM()))
    other = OfPairs(nn.LSTMCell(M, N).double())
    other.head = model.head
    with torch.no_grad():
        for name, source in (("ih", model.cell.enter), ("hh", model.cell.again)):
            getattr(other.cell, f"weight_{name}").copy_(source.weight)
            getattr(other.cell, f"bias_{name}").copy_(source.bias)
    ours, torchs = capture(model)["cell"], capture(other)["cell"]
    for name in ("hidden", "hidden_gradient", "cell", "cell_gradient", "input_gradient", "output_gradient"):
        assert difference(ours[name], torchs[name]) <= 1e-12, name


def test_what_others_ask_of_a_step_is_its_output_gradient() -> None:
    assert_asked_of_the_output(model := seeded(Loop(LeakyRNN())), capture(model)["cell"])


def assert_asked_of_the_output(model: nn.Module, leaf: Any) -> None:
    """What the head asks of the outputs: plain autograd from the outputs on."""
    outputs = torch.from_numpy(leaf["output"].values).requires_grad_()
    loss = MSE(model.head(outputs), Y) * B
    assert difference(leaf["output_gradient"], torch.autograd.grad(loss, outputs)[0].numpy()) <= 1e-12


def test_nothing_is_asked_of_the_steps_that_only_the_next_call_reads() -> None:
    class Last(Loop):
        def between(self, state: torch.Tensor, step: int) -> torch.Tensor:
            return state * 0.5

    last = torch.zeros_like(Y)
    last[:, -1] = 1
    model = seeded(Last(LeakyRNN()))
    leaf = tt.capture(model, X, Y, loss=lambda p, y: (last * (p - y) ** 2).mean((1, 2)))["cell"]
    asked = np.abs(leaf["output_gradient"].values).sum((0, 2))
    assert asked[-1] > 0
    assert not asked[:-1].any()


class TestWithoutInput:
    """`h = cell(h)`: a module that takes nothing but its state."""

    class Alone(Noting):
        def __init__(self) -> None:
            super().__init__()
            self.again = nn.Linear(N, N)

        def forward(self, h: torch.Tensor) -> torch.Tensor:
            return self.note("hidden", h - 0.3 * self.again(h).tanh())

    class Pair(Alone):
        def forward(self, state: Any) -> Any:
            h, c = state
            c = self.note("cell", 0.5 * c + self.again(h))
            return self.note("hidden", c.tanh()), c

    class Running(Loop):
        """Starts from the input; the state alone goes on."""

        def __init__(self, cell: nn.Module) -> None:
            super().__init__(cell)
            self.encode = nn.Sequential(nn.Linear(M, N), nn.Tanh())

        def start(self, x: torch.Tensor) -> Any:
            return self.encode(x[:, 0])

        def call(self, x: torch.Tensor, state: Any) -> tuple[torch.Tensor, Any]:
            state = self.cell(state)
            return state, state

    class RunningPair(Running):
        def start(self, x: torch.Tensor) -> Any:
            return self.encode(x[:, 0]), x.new_zeros(len(x), N)

        def call(self, x: torch.Tensor, state: Any) -> tuple[torch.Tensor, Any]:
            state = self.cell(state)
            return state[0], state

    @pytest.mark.parametrize("name", ["alone", "pair", "sequential", "checkpointed"])
    def test_its_states_and_their_gradients_are_those_of_autograd(self, name: str) -> None:
        class Saving(self.Running):  # type: ignore[name-defined, misc]
            def call(self, x: torch.Tensor, state: Any) -> tuple[torch.Tensor, Any]:
                state = checkpoint(self.cell, state, use_reentrant=False)
                return state, state

        model = {"pair": self.RunningPair, "checkpointed": Saving}.get(name, self.Running)(
            self.Pair() if name == "pair" else self.Alone()
        )
        model = seeded(model)
        states = ("hidden", "cell") if name == "pair" else ("hidden",)
        found = expected(model, states)
        if name == "sequential":
            again = model.cell.again

            class Step(nn.Module):
                def __init__(self) -> None:
                    super().__init__()
                    self.again = again

                def forward(self, h: torch.Tensor) -> torch.Tensor:
                    return h - 0.3 * self.again(h).tanh()

            model.cell = nn.Sequential(Step())
        tree = capture(model)
        assert [leaf.path for leaf in tree.leaves] == ["/cell"]
        for variable, values in found.items():
            assert difference(tree["cell"][variable], values) <= 1e-12, variable
        assert float(tree["cell"]["certificate_time"]) <= 1e-12
        assert "input" not in tree["cell"]

    def test_a_module_that_each_step_calls_anew_is_none(self) -> None:
        class Encoding(Loop):
            def __init__(self) -> None:
                super().__init__(LeakyRNN())
                self.encode = nn.Sequential(nn.Linear(M, M), nn.Tanh())

            def call(self, x: torch.Tensor, state: Any) -> tuple[torch.Tensor, Any]:
                return super().call(checkpoint(self.encode, x, use_reentrant=False), state)

        model = seeded(Encoding())
        assert [leaf.path for leaf in capture(model).leaves] == ["/cell"]
        (of_weights,) = torch.autograd.grad(MSE(model(X), Y), [model.encode[0].weight])
        tree = capture(model, layers="all")
        assert difference(tree["encode/0"]["weight_gradient"], of_weights.numpy()) <= 1e-12


class TestBetweenTheCalls:
    """Whatever stands between two calls belongs to the recurrence."""

    @pytest.mark.parametrize("name", ["product", "dropout", "module", "view"])
    def test_the_states_are_found_through_it(self, name: str) -> None:
        class Between(Loop):
            def between(self, state: torch.Tensor, step: int) -> torch.Tensor:
                if name == "product":
                    return state * 0.5
                if name == "dropout":
                    return nn.functional.dropout(state, 0.25, training=True)
                return self.norm(state) if name == "module" else state.reshape(-1).view(B, N)

        model = Between(LeakyRNN())
        model.norm = nn.LayerNorm(N)
        model = seeded(model)
        torch.manual_seed(0)
        leaf = capture(model)["cell"]
        torch.manual_seed(0)
        for variable, values in expected(model, ("hidden",)).items():
            assert difference(leaf[variable], values) <= 1e-12, variable
        assert leaf.attrs["states_changed"] == (name != "view")
        assert not leaf["reset"].any()
        assert_asked_of_the_output(model, leaf)

    def test_written_on_in_place(self) -> None:
        class Copying(Loop):
            def call(self, x: torch.Tensor, state: Any) -> tuple[torch.Tensor, Any]:
                output, state = super().call(x, state)
                return output.clone(), state

        class Writing(Copying):
            def between(self, state: torch.Tensor, step: int) -> torch.Tensor:
                return state.mul_(0.5)

        class Plain(Copying):
            def between(self, state: torch.Tensor, step: int) -> torch.Tensor:
                return state * 0.5

        for variable, values in expected(seeded(Plain(LeakyRNN())), ("hidden",)).items():
            assert difference(capture(seeded(Writing(LeakyRNN())))["cell"][variable], values) <= 1e-12

    def test_a_state_that_gains_samples_is_another_sequence(self) -> None:
        class Growing(Loop):
            def start(self, x: torch.Tensor) -> Any:
                return x.new_zeros(2, N)

            def between(self, state: torch.Tensor, step: int) -> torch.Tensor:
                return nn.functional.pad(state, (0, 0, 0, 1)) if step == 2 else state

            def call(self, x: torch.Tensor, state: Any) -> tuple[torch.Tensor, Any]:
                state = self.cell(x[: len(state)], state)
                return nn.functional.pad(state, (0, 0, 0, B - len(state))), state

        tree = capture(seeded(Growing(LeakyRNN())))
        assert [(leaf.path, leaf.sizes["time"], leaf.sizes["sample"]) for leaf in tree.leaves] == [
            ("/cell", 3, 2),
            ("/cell@2", 3, 3),
        ]
        assert (
            "hidden changes its shape before the next call, from (2, 4) to (3, 4)"
            in tree["cell"].attrs["ends"]
        )

    def test_a_loop_without_gradients_shows_states_and_says_why_there_is_no_more(self) -> None:
        class Frozen(Loop):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                with torch.no_grad():
                    state = self.start(x)
                    for entering in x.unbind(1):
                        state = self.cell(entering, state)
                return self.head(state).unsqueeze(1).expand(-1, T, -1)

        model = seeded(Frozen(LeakyRNN()))
        leaf = tt.capture(model, X, Y, loss=MSE, quantities=["hidden", "input"])["cell"]
        assert leaf.sizes["time"] == T
        with pytest.raises(tt.NoGradientError):
            tt.capture(model, X, Y, loss=MSE)

    def test_a_detached_state_is_an_edge_and_no_reset(self) -> None:
        class Cut(Loop):
            def between(self, state: torch.Tensor, step: int) -> torch.Tensor:
                return state.detach() if step == 2 else state

        leaf = capture(seeded(Cut(LeakyRNN())))["cell"]
        assert leaf.sizes["time"] == T
        assert not leaf["reset"].any()
        assert (leaf["carried_gradient"].isel(time=2) == 0).all()
        assert (leaf["carried_gradient"].isel(time=[0, 1, 3, 4]) > 0).all()


def test_what_a_module_writes_on_its_arguments_arrives_at_the_caller() -> None:
    class Writing(LeakyRNN):
        def forward(self, x: torch.Tensor, h: Any, kept: Any, notes: Any) -> torch.Tensor:  # type: ignore[override]
            h = super().forward(x, h)
            kept[:, notes["step"]] = h
            notes["step"] += 1
            notes["all"].append(h)
            return h

    class Keeping(Loop):
        def __init__(self, cell: nn.Module, *, from_list: bool) -> None:
            super().__init__(cell)
            self.from_list = from_list

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            h, kept, notes = self.start(x), x.new_zeros(len(x), T, N), {"step": 0, "all": []}
            for one in x.unbind(1):
                h = self.cell(one, h, kept, notes)
            return self.head(torch.stack(notes["all"], 1) if self.from_list else kept)

    expected = capture(seeded(Loop(LeakyRNN())))
    for from_list in (False, True):
        with pytest.warns(tt.ThroughTimeWarning, match="certificate"):  # what is written is no result
            tree = tt.capture(seeded(Keeping(Writing(), from_list=from_list)), X, Y, loss=MSE)
        assert difference(tree["cell"]["loss"], expected["cell"]["loss"]) <= 1e-12
        assert difference(tree["cell"]["hidden"], expected["cell"]["hidden"]) <= 1e-12


class TestNoRecurrence:
    """Modules that are called again without what they returned."""

    def test_a_shared_network_is_none(self) -> None:
        class Shared(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.net = nn.Bilinear(M, M, N)
                self.act, self.head = nn.Tanh(), nn.Linear(N, K)

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                steps = [self.act(self.head(self.act(self.net(one, one)))) for one in x.unbind(1)]
                return torch.stack(steps, 1)

        with pytest.raises(tt.LayerNotFoundError, match="no recurrent layer"):
            capture(seeded(Shared()))

    def test_a_helper_without_weights_is_none_unless_it_is_named(self) -> None:
        class Sum(nn.Module):
            def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
                return x + y

        class Residual(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.add, self.rnn, self.head = Sum(), nn.GRU(M, M, batch_first=True), nn.Linear(M, K)

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                x = self.add(x, self.rnn(x)[0])
                return self.head(self.add(x, x.tanh()))

        model = seeded(Residual())
        assert [leaf.path for leaf in capture(model).leaves] == ["/rnn"]
        assert capture(model, layers="add")["add"].attrs["states"] == "hidden"

    def test_attention_over_the_states_of_a_cell_is_none(self) -> None:
        class Attending(nn.Module):
            def __init__(self, cell: nn.Module) -> None:
                super().__init__()
                self.cell, self.attend, self.head = cell, Attention(), nn.Linear(N, K)

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                h, memory, outputs = x.new_zeros(len(x), N), x.new_zeros(len(x), N), []
                for one in x.unbind(1):
                    h = self.cell(one + self.attend(h, x), h)
                    outputs.append(self.head(h + memory))
                return torch.stack(outputs, 1)

        class Attention(nn.Module):
            def forward(self, query: torch.Tensor, memory: torch.Tensor) -> torch.Tensor:
                scores = (memory * query[:, None, :M]).sum(-1).softmax(-1)
                return (scores[..., None] * memory).sum(1)

        for cell in (LeakyRNN(), nn.GRUCell(M, N)):
            tree = capture(seeded(Attending(cell)))
            assert [leaf.path for leaf in tree.leaves] == ["/cell"]
            assert tree["cell"].attrs.get("states", "hidden") == "hidden"


def test_two_recurrences_that_feed_each_other_are_two_leaves() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.left, self.right, self.head = Reading(), Reading(), nn.Linear(N, K)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            a = b = x.new_zeros(len(x), N)
            outputs = []
            for one in x.unbind(1):
                a = self.left(one, b)
                b = self.right(one, a)
                outputs.append(self.head(b))
            return torch.stack(outputs, 1)

    class Reading(LeakyRNN):
        pass

    assert [leaf.path for leaf in capture(seeded(Two())).leaves] == ["/left", "/right"]


def test_a_module_that_makes_the_state_of_another_is_a_leaf_beside_it() -> None:
    """A mixed memory, as in a CfC: the LSTM keeps c, and the other cell makes the next h of its h."""

    class Mixed(OfPairs):
        def __init__(self) -> None:
            super().__init__(WrittenLSTM())
            self.after = LeakyRNN()

        def call(self, x: torch.Tensor, state: Any) -> tuple[torch.Tensor, Any]:
            h, c = self.cell(x, state)
            h = self.after(x, h)
            return h, (h, c)

    model = seeded(Mixed())
    tree = capture(model)
    assert [leaf.path for leaf in tree.leaves] == ["/cell", "/after"]
    made: list[torch.Tensor] = []

    def keep(*call: Any) -> None:
        call[-1].retain_grad()
        made.append(call[-1])

    model.after.register_forward_hook(keep)
    (MSE(model(X), Y) * B).backward()
    assert difference(tree["after"]["hidden"], torch.stack(made, 1).detach().numpy()) <= 1e-12
    wanted = torch.stack([one.grad for one in made], 1).numpy()
    assert difference(tree["after"]["hidden_gradient"], wanted) <= 1e-12
    assert all(float(leaf["certificate_time"]) <= 1e-12 for leaf in tree.leaves)


def test_two_sequences_of_one_module_are_two_leaves() -> None:
    class Twice(Loop):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) + super().forward(x.flip(1))

    model = seeded(Twice(LeakyRNN()))
    tree = capture(model)
    assert [(leaf.path, leaf.sizes["time"]) for leaf in tree.leaves] == [("/cell", T), ("/cell@2", T)]
    assert difference(tree["cell@2"]["input"], X.flip(1)) == 0.0


def test_a_checkpointed_or_compiled_cell_is_captured_as_it_is() -> None:
    class Checkpointed(Loop):
        def call(self, x: torch.Tensor, state: Any) -> tuple[torch.Tensor, Any]:
            state = checkpoint(self.cell, x, state, use_reentrant=False)
            return state, state

    plain, saving, compiled = (seeded(one(LeakyRNN())) for one in (Loop, Checkpointed, Loop))
    compiled.cell = torch.compile(compiled.cell, backend="eager")
    expected = capture(plain)["cell"]
    for model in (saving, compiled):
        leaf = capture(model)["cell"]
        for name in set(expected.data_vars) - {"certificate_weights"}:
            assert difference(leaf[name], expected[name]) <= 1e-12, name


def test_all_layers_have_the_recurrence_in_place_of_what_it_is_made_of() -> None:
    tree = capture(seeded(Loop(LeakyRNN())), layers="all")
    assert [leaf.path for leaf in tree.leaves][:2] == ["/cell", "/head"]
    assert not any("again" in leaf.path for leaf in tree.leaves)


def test_a_recurrence_is_asked_for_by_its_name() -> None:
    model = seeded(Loop(LeakyRNN()))
    named, found = capture(model, layers="cell"), capture(model)
    assert named.groups == found.groups
    assert named["cell"].to_dataset().identical(found["cell"].to_dataset())


def test_every_measure_of_memory_reads_a_recurrence() -> None:
    class Last(Loop):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x)[:, -1]

    leaf = tt.capture(seeded(Last(LeakyRNN())), X, Y[:, -1], loss=MSE)["cell"]
    norms = np.linalg.norm(leaf["hidden_gradient"].values, axis=-1)[:, ::-1]
    profile = tt.diagnostics.lag_profile(leaf)
    assert difference(profile["ratio"], np.median(norms / norms[:, :1], axis=0)) <= 1e-10


def test_nothing_stays_on_the_model_when_the_loss_raises() -> None:
    model = seeded(Loop(LeakyRNN()))
    before = {name: dict(vars(module)) for name, module in model.named_modules()}

    def failing(output: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("no loss")

    with pytest.raises(tt.ThroughTimeError):
        tt.capture(model, X, Y, loss=failing)
    for name, module in model.named_modules():
        assert vars(module).keys() == before[name].keys()
        assert "forward" not in vars(module)
