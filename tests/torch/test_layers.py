"""Which layers a caller can name, how they are called in the tree, and what goes wrong says."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_sequence

import throughtime as tt

B, T, M, N = 3, 5, 2, 3
MSE = nn.MSELoss()
X = torch.randn(B, T, M, generator=torch.Generator().manual_seed(0))
Y = torch.zeros(B, T, 1)


class Inner(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(M, N, num_layers=2, batch_first=True)
        self.by_name = nn.ModuleDict({"a/b": nn.GRU(N, N, batch_first=True)})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.by_name["a/b"](self.lstm(x)[0])[0]


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = Inner()
        self.unused = nn.RNN(M, N)
        self.head = nn.Linear(N, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.encoder(x))


def paths(layers: Any = "recurrent", **options: Any) -> list[str]:
    tree = tt.capture(Model(), X, Y, loss=MSE, layers=layers, **options)
    return [leaf.path for leaf in tree.leaves]


def test_recurrent_layers_are_found_with_the_layers_inside_them() -> None:
    assert set(paths()) == {"/encoder/lstm/0", "/encoder/lstm/1", "/encoder/by_name/a%2Fb"}


def test_layers_that_were_not_called_are_told() -> None:
    assert tt.capture(Model(), X, Y, loss=MSE).attrs["not_called"] == "unused"
    with pytest.raises(tt.LayerNotFoundError, match="did not call unused"):
        paths("unused")


@pytest.mark.parametrize("name", ["encoder/lstm", "encoder.lstm", "lstm"])
def test_a_name_a_path_or_a_part_finds_a_layer(name: str) -> None:
    assert set(paths(name)) == {"/encoder/lstm/0", "/encoder/lstm/1"}


def test_one_inner_layer_can_be_named() -> None:
    assert paths("encoder/lstm/1") == ["/encoder/lstm/1"]
    assert set(paths(["encoder/lstm/0", "encoder/lstm/1"])) == {"/encoder/lstm/0", "/encoder/lstm/1"}


def test_an_index_counts_the_children_and_a_container_stands_beside_its_content() -> None:
    assert paths(2) == paths(-1) == ["/head"]
    assert paths(0) == ["/encoder@1"]
    assert set(paths([0, "a/b"])) == {"/encoder@1", "/encoder/by_name/a%2Fb"}


def test_a_layer_of_several_layers_is_one() -> None:
    model = Model()
    tt.Probe(model, loss=MSE, layers=model.encoder.lstm).expect_one_layer()
    tree = tt.capture(model, X, Y, loss=MSE, layers=model.encoder.lstm)
    assert [leaf.path for leaf in tree.leaves] == ["/encoder/lstm/0", "/encoder/lstm/1"]


def test_objects_lists_and_predicates() -> None:
    model = Model()
    tree = tt.capture(model, X, Y, loss=MSE, layers=[model.head, model.encoder.lstm])
    assert {leaf.path for leaf in tree.leaves} == {"/encoder/lstm/0", "/encoder/lstm/1", "/head"}
    assert paths(lambda module: isinstance(module, nn.Linear)) == ["/head"]
    with pytest.raises(tt.LayerNotFoundError, match="This Linear is not part of the model"):
        tt.capture(model, X, Y, loss=MSE, layers=nn.Linear(1, 1))


def test_a_wrong_name_lists_what_there_is() -> None:
    with pytest.raises(tt.LayerNotFoundError) as caught:
        paths("gru")
    text = str(caught.value)
    assert "There is no layer 'gru'" in text
    assert "  2  head  (Linear)" in text
    assert "encoder/lstm/1  (LSTM)  recurrent" in text


def test_a_name_of_several_layers_lists_them() -> None:
    model = nn.Sequential(nn.GRU(M, N), nn.GRU(N, N))
    with pytest.raises(tt.AmbiguousLayerError, match="2 recurrent layers, 0, 1"):
        tt.get_rnn_gradients(model, X, Y, loss=MSE)
    pair = nn.ModuleDict({"lstm_a": nn.LSTM(M, N), "lstm_b": nn.LSTM(M, N)})
    with pytest.raises(tt.AmbiguousLayerError, match="matches 2 layers: 'lstm_a', 'lstm_b'"):
        tt.capture(pair, X, Y, loss=MSE, layers="lstm")


def test_an_index_out_of_range_lists_the_layers() -> None:
    with pytest.raises(tt.LayerNotFoundError, match="There is no layer 7"):
        paths(7)
    with pytest.raises(tt.LayerNotFoundError, match=r"got 1\.5\."):
        paths(1.5)


def test_a_model_without_recurrent_layers() -> None:
    with pytest.raises(tt.LayerNotFoundError, match="no recurrent layer"):
        tt.capture(nn.Linear(M, 1), X, Y, loss=MSE)
    tree = tt.capture(nn.Linear(M, 1), X, Y, loss=MSE, layers="all")
    assert tree["linear"]["output_gradient"].dims == ("sample", "time", "output_unit")


def test_outputs_of_other_layers_have_samples_first_and_torchs_channels() -> None:
    class TimeFirst(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convolve, self.gru, self.head = nn.Conv1d(M, N, 3, padding=1), nn.GRU(M, N), nn.Linear(N, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            signal = self.convolve(x.permute(1, 2, 0)).permute(2, 0, 1)
            return self.head(self.gru(x)[0] + signal)

    tree = tt.capture(TimeFirst(), X.transpose(0, 1), Y.transpose(0, 1), loss=MSE, layers="all")
    assert tree["convolve"]["output"].dims == ("sample", "output_unit", "time")
    assert tree["convolve"]["output"].shape == (B, N, T)
    assert tree["head"]["output_gradient"].shape == (B, T, 1)


def test_parameters_with_names_of_the_schema_stand_beside_its_variables() -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.time, self.output = nn.Parameter(torch.ones(M)), nn.Parameter(torch.ones(3, M))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * self.time * self.output.sum(0)

    model = nn.Sequential(Named(), nn.GRU(M, N, batch_first=True))
    y = torch.zeros(B, T, N)
    leaf = tt.capture(model, X, y, loss=lambda output, y: MSE(output[0], y), layers="all")["0"]
    assert leaf["output"].dims == ("sample", "time", "output_unit")
    assert leaf["time_parameter_gradient"].shape == (M,)
    assert leaf["output_parameter"].shape == (3, M)


def test_a_bare_parametrized_module_keeps_its_name() -> None:
    module = nn.utils.parametrizations.weight_norm(nn.GRU(M, N, batch_first=True), "weight_hh_l0")
    tree = tt.capture(module, X, torch.zeros(B, T, N), loss=lambda output, y: MSE(output[0], y))
    assert [leaf.path for leaf in tree.leaves] == ["/gru"]
    assert tree["gru"].attrs["layer_class"] == "GRU"


class TestLosses:
    def test_there_has_to_be_one(self) -> None:
        with pytest.raises(tt.LossError, match=r"loss=, a function \(output, y\)"):
            tt.capture(Model(), X, Y)
        with pytest.raises(tt.LossError, match="not str"):
            tt.capture(Model(), X, Y, loss="mse")

    def test_what_it_returns_has_to_be_a_tensor_of_floats(self) -> None:
        with pytest.raises(tt.LossError, match="it returned float"):
            tt.capture(Model(), X, Y, loss=lambda output, y: 1.0)
        with pytest.raises(tt.LossError, match=r"a tensor of torch.int64"):
            tt.capture(Model(), X, Y, loss=lambda output, y: output.argmax())

    def test_what_it_raises_is_told_with_the_shapes(self) -> None:
        with pytest.raises(tt.LossError, match=r"output has shape \(3, 5, 1\), y \(3, 2\)"):
            tt.capture(Model(), X, torch.zeros(B, 2), loss=lambda output, y: (output[..., 0] - y).mean())

    def test_one_that_does_not_depend_on_the_layer(self) -> None:
        with pytest.raises(tt.NoGradientError, match="does not depend on the output of"):
            tt.capture(Model(), X, Y, loss=lambda output, y: output.detach().mean())

    def test_without_labels_there_are_values_and_no_gradients(self) -> None:
        tree = tt.capture(Model(), X)
        names = set(tree["encoder/lstm/1"].data_vars)
        assert {"hidden", "cell", "gate_activation", "kernel", "output"} <= names
        assert not [name for name in names if "gradient" in name or name == "loss"]
        assert tree.attrs["gradients"].startswith("none")
        with pytest.raises(tt.LossError, match="Without labels"):
            tt.capture(Model(), X, quantities="hidden_gradient")

    def test_weights_of_samples(self) -> None:
        weight = torch.tensor([1.0, 0.0, 2.0])
        per_step = nn.MSELoss(reduction="none")
        tree = tt.capture(Model(), X, Y, loss=per_step, sample_weight=weight)
        plain = tt.capture(Model(), X, Y, loss=per_step)
        ours, theirs = (t["encoder/lstm/1"]["output_gradient"] for t in (tree, plain))
        assert float(tree["encoder/lstm/1"]["reduction_factor"]) == pytest.approx(1 / B)
        assert ours.shape == theirs.shape
        assert float(np.abs(ours[1]).max()) == 0.0
        with pytest.raises(tt.LossError, match='reduction="none"'):
            tt.capture(Model(), X, Y, loss=nn.functional.mse_loss, sample_weight=weight)
        with pytest.raises(tt.LossError, match="the model reads 3 samples"):
            tt.capture(Model(), X, Y, loss=per_step, sample_weight=torch.ones(4))

    def test_the_factor_is_that_of_the_samples_wherever_their_axis_is(self) -> None:
        model = nn.LSTM(M, N)
        for x in (X, X[:, :B]):
            tree = tt.capture(model, x, torch.zeros(*x.shape[:2], N), loss=lambda o, y: MSE(o[0], y))
            assert float(tree["lstm"]["reduction_factor"]) == pytest.approx(1 / x.shape[1])
            assert tree["lstm"].sizes["sample"] == x.shape[1]

    def test_samples_that_are_folded_with_something_else_are_those_of_the_input(self) -> None:
        class Folded(nn.Module):
            """Each channel of a sample is a sequence of its own for the layer."""

            def __init__(self) -> None:
                super().__init__()
                self.gru = nn.GRU(1, 1, batch_first=True)

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                folded = x.transpose(1, 2).reshape(B * M, T, 1)
                return self.gru(folded)[0][:, -1].reshape(B, M)

        tree = tt.capture(Folded(), X, torch.zeros(B, M), loss=MSE)
        assert tree["gru"].sizes["sample"] == B * M
        assert float(tree["gru"]["reduction_factor"]) == pytest.approx(1 / B)

    def test_a_spoiled_sample_does_not_change_the_factor(self) -> None:
        x = X.clone()
        x[0, 2] = torch.nan
        with pytest.warns(tt.ThroughTimeWarning, match="certificate"):
            tree = tt.capture(Model(), x, Y, loss=MSE)
        assert float(tree["encoder/lstm/0"]["reduction_factor"]) == pytest.approx(1 / B)
        assert "input of encoder/lstm/0" in str(tt.diagnostics.first_nonfinite(tree))

    def test_a_loss_that_cannot_be_tried_on_fewer_samples_is_told(self) -> None:
        def whole(output: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return (output.reshape(B, T) - y.reshape(B, T)).square().mean()

        tree = tt.capture(Model(), X, Y, loss=whole)
        assert "fails on two samples alone" in tree.attrs["loss_reduction"]
        assert float(tree["encoder/lstm/0"]["reduction_factor"]) == 1.0

    def test_a_layer_whose_states_alone_are_used(self) -> None:
        class Last(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.lstm = nn.LSTM(M, 1, batch_first=True)

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return self.lstm(x)[1][0][-1]

        tree = tt.capture(Last(), X, Y[:, 0], loss=MSE)
        assert "final states" in tree["lstm"].attrs["missing_output_gradient"]
        assert float(np.abs(tree["lstm"]["hidden_gradient"]).min()) > 0
        with pytest.raises(tt.NoGradientError, match="hidden_gradient has what reaches them"):
            tt.get_rnn_gradients(Last(), X, Y[:, 0], loss=MSE)


class TestData:
    def test_numpy_and_lists_get_the_precision_of_the_model(self) -> None:
        model = Model()
        expected = tt.capture(model, X, Y, loss=MSE)
        for x, y in ((X.double().numpy(), Y.numpy()), (X.tolist(), Y.tolist())):
            tree = tt.capture(model, x, y, loss=MSE)
            for leaf in expected.leaves:
                assert leaf.to_dataset().drop_attrs().equals(tree[leaf.path].to_dataset().drop_attrs())

    def test_a_loader_gives_its_first_batch(self) -> None:
        dataset = torch.utils.data.TensorDataset(X, Y)
        tree = tt.capture(Model(), torch.utils.data.DataLoader(dataset, batch_size=2), loss=MSE)
        assert tree.attrs["batch"] == "the first batch of a DataLoader"
        assert tree["encoder/lstm/0"].sizes["sample"] == 2

    def test_packed_sequences_are_padded_and_say_which_steps_are_valid(self) -> None:
        lengths = (2, 5, 4)
        packed = pack_sequence([X[k, :length] for k, length in enumerate(lengths)], enforce_sorted=False)
        model = nn.GRU(M, N, bidirectional=True)
        y = torch.zeros(sum(lengths), 2 * N)
        tree = tt.capture(model, packed, y, loss=lambda output, y: MSE(output[0].data, y))
        leaf = tree["gru"]
        np.testing.assert_array_equal(leaf["valid"].sum("time"), lengths)
        np.testing.assert_array_equal(leaf["input"][0, :2], X[0, :2])
        for name in ("input", "output", "output_gradient", "input_gradient", "gate_gradient"):
            assert float(np.abs(leaf[name].where(~leaf["valid"], 0.0)).max()) == 0.0
        assert (np.abs(leaf["output_gradient"]).max("output_unit") > 0).equals(leaf["valid"])

    def test_a_dict_goes_by_names_and_as_one_where_the_model_takes_one(self) -> None:
        class ByName(Model):
            def forward(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
                return super().forward(first + second)

        class AsOne(Model):
            def forward(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
                return super().forward(batch["first"] + batch["second"])

        for kind in (ByName, AsOne):
            tree = tt.capture(kind(), {"first": X, "second": X}, Y, loss=MSE)
            np.testing.assert_array_equal(tree["encoder/lstm/0"]["input"], 2 * X)

    def test_an_input_of_integers_has_no_gradient_and_what_embeds_it_has(self) -> None:
        class Tokens(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.embedding, self.rnn = nn.Embedding(9, M), nn.RNN(M, 1, batch_first=True)

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return self.rnn(self.embedding(x))[0]

        tokens = np.arange(B * T, dtype="int32").reshape(B, T) % 9
        tree = tt.capture(Tokens(), tokens, Y, loss=MSE, layers="all")
        np.testing.assert_allclose(
            tree["rnn"]["input_gradient"], tree["embedding"]["output_gradient"], rtol=1e-6
        )


def test_weights_that_wait_for_their_shape_are_told() -> None:
    model = nn.Sequential(nn.LazyLinear(M), nn.GRU(M, N))
    with pytest.raises(tt.UnbuiltModelError, match=r"0.weight, 0.bias .* call the model once"):
        tt.capture(model, X, Y, loss=MSE)


def test_what_is_no_module_is_told() -> None:
    with pytest.raises(tt.UnsupportedModelError, match=r"torch.Tensor, which is not a torch.nn.Module"):
        tt.capture(X, X, Y)
