"""Losses that average over steps, against torch's own unreduced ones; labels at other steps."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

import throughtime as tt

SAMPLES, STEPS, CLASSES = 24, 8, 5


class Tagger(nn.Module):
    def __init__(self, *, batch_first=True, every=1):
        super().__init__()
        torch.manual_seed(0)
        self.embedding, self.every = nn.Embedding(CLASSES, 6), every
        self.rnn, self.head = nn.GRU(6, 12, batch_first=batch_first), nn.Linear(12, CLASSES)

    def forward(self, x):
        return self.head(self.rnn(self.embedding(x))[0][:, self.every - 1 :: self.every])


def apart(output, y):
    return functional.cross_entropy(output.transpose(1, 2), y, reduction="none")


def flattened(output, y):
    return functional.cross_entropy(output.reshape(-1, CLASSES), y.reshape(-1))


def added(output, y):
    return functional.cross_entropy(output.reshape(-1, CLASSES), y.reshape(-1), reduction="sum")


def of_samples(output, y):
    return apart(output, y).mean(1)


def tokens(steps=STEPS):
    return torch.randint(CLASSES, (SAMPLES, steps), generator=torch.Generator().manual_seed(1))


def trained(model, x, y, loss, passes=60):
    optimizer = torch.optim.Adam(model.parameters(), 0.03)
    for _ in range(passes):
        optimizer.zero_grad()
        loss(model(x), y).mean().backward()
        optimizer.step()
    return model


@pytest.mark.parametrize("loss", [flattened, added, of_samples, nn.MSELoss()])
def test_a_loss_that_averages_or_adds_steps_has_the_lag_matrix_of_its_steps(loss):
    x, y, alone = tokens(), tokens().flip(1), apart
    if isinstance(loss, nn.Module):
        y, alone = functional.one_hot(y, CLASSES).float(), nn.MSELoss(reduction="none")
    expected = tt.lag_matrix(Tagger(), x, y, loss=alone)["rnn"]["lag_matrix"]
    found = tt.lag_matrix(Tagger(), x, y, loss=loss)["rnn"]["lag_matrix"]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-9)


def test_a_step_without_a_label_has_no_gradient():
    y = tokens().clone()
    y[:, :3] = -100
    found = tt.lag_matrix(Tagger(), tokens(), y, loss=flattened)["rnn"]["lag_matrix"]
    expected = tt.lag_matrix(Tagger(), tokens(), y, loss=apart)["rnn"]["lag_matrix"]
    assert not found.values[:, :3].any()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-9)


def largest(output, y):
    return apart(output, y).max()


def spread(output, y):
    return apart(output, y).std()


@pytest.mark.filterwarnings("ignore:std")  # of a single step, which is not a number
@pytest.mark.parametrize("loss", [largest, spread])
def test_a_loss_that_couples_steps_has_no_lag_matrix(loss):
    with pytest.raises(tt.LossError, match="for each sample and step"):
        tt.lag_matrix(Tagger(), tokens(), tokens(), loss=loss)


def test_the_verdict_on_an_averaged_loss_is_that_on_its_steps():
    x = tokens()
    y = x.roll(2, 1)  # each label is the token two steps before
    model = trained(Tagger(), x, y, flattened)
    one, other = (tt.diagnose(model, x, y, loss=loss, dependency_length=2) for loss in (flattened, apart))
    assert one.verdict == other.verdict == "uses"
    for name in ("reach", "use"):
        assert getattr(one.layers["rnn"], name).value == pytest.approx(
            getattr(other.layers["rnn"], name).value
        )
    with torch.no_grad():  # and the loss is that of all steps, which `solved` is compared with
        assert one.loss == pytest.approx(float(flattened(model(x), y)), rel=1e-5)
        assert other.loss == pytest.approx(one.loss, rel=1e-5)


class Last(Tagger):
    def forward(self, x):
        return super().forward(x)[:, -1]


def test_labels_at_other_steps_than_the_layers_are_no_use_of_old_inputs():
    """Each label is the token of its own step: old tokens count for old labels, without any memory."""
    x = tokens()
    model, y = Tagger(every=2), x[:, 1::2]
    found = tt.diagnose(trained(model, x, y, flattened), x, y, loss=flattened, dependency_length=4)
    assert found.layers["rnn"].use.answer == "not measured"
    assert "a label for each step" in found.text


def test_labels_with_time_first_are_no_use_of_old_inputs():
    x = tokens().T
    model = trained(Tagger(batch_first=False), x, x, flattened)
    found = tt.diagnose(model, x, x, loss=flattened, dependency_length=4)
    assert found.layers["rnn"].use.answer == "not measured"


class Pooled(Tagger):
    def forward(self, x):
        return super().forward(x).mean(1)


def test_several_labels_that_all_depend_on_the_newest_input_are_one_prediction():
    x = tokens()
    y = torch.stack([(x == each).float().mean(1) for each in range(CLASSES)], 1)
    model = trained(Pooled(), x, y, nn.MSELoss())
    assert tt.diagnose(model, x, y, loss=nn.MSELoss(), dependency_length=4).layers["rnn"].use.answer == "yes"


def test_outputs_without_samples_have_no_loss_of_a_sample():
    class Flat(Tagger):
        def forward(self, x):
            return super().forward(x).reshape(-1, CLASSES)

    with pytest.raises(tt.LossError, match="samples first"):
        tt.Probe(Flat(), loss=nn.CrossEntropyLoss()).losses(tokens(), tokens().reshape(-1))


def test_a_model_that_needs_no_memory_is_no_fault():
    x = tokens()
    model = Last()
    model.rnn = nn.RNN(6, 12, batch_first=True)
    model.rnn.weight_hh_l0.requires_grad_(False).zero_()  # each state has read a single input
    trained(model, x, x[:, -1], nn.CrossEntropyLoss())
    found = tt.diagnose(model, x, x[:, -1], loss=nn.CrossEntropyLoss())
    assert str(found.brief).startswith("The model uses its newest input alone.")
    assert "ontinue training" not in str(found.brief)


def test_a_detached_state_is_named_instead_of_a_gate():
    class Windows(Last):
        def forward(self, x):
            state = None
            for part in self.embedding(x).split(4, 1):
                output, state = self.rnn(part, None if state is None else state.detach())
            return self.head(output[:, -1])

    x, options = tokens(), {"loss": nn.CrossEntropyLoss(), "dependency_length": 6}
    cut = tt.diagnose(Windows(), x, x[:, 1], solved=0.0, **options)
    assert [each.name for each in cut.remedies] == ["window"]
    assert {each.value for each in cut.why if each.name == "cut"} == {
        4
    }  # detached between steps 3 and 4 of 8
    whole = tt.diagnose(Last(), x, x[:, 1], **options)
    assert "cut" not in {each.name for each in whole.why}


@pytest.mark.filterwarnings("ignore:The loss does not depend on the output of rnn")
def test_a_layer_that_is_called_anew_is_not_asked_for_longer_sequences():
    class Anew(Last):
        def forward(self, x):
            for part in self.embedding(x).split(4, 1):
                output, _ = self.rnn(part)  # from zeros each time
            return self.head(output[:, -1])

    x = tokens()
    found = tt.diagnose(Anew(), x, x[:, 1], loss=nn.CrossEntropyLoss(), dependency_length=6)
    assert found.verdict == "cannot_say"
    assert "called several times" in found.text
    assert [each.name for each in found.remedies] == ["calls"]


@pytest.mark.parametrize("loss", [flattened, apart, added])
def test_losses_in_words_are_means_over_the_steps_at_which_use_is_measured(loss):
    """A head of large weights is worse than one prediction for all samples, in the last half."""
    model, x, y = Tagger(), tokens(), tokens().flip(0, 1)
    with torch.no_grad():
        model.head.weight.mul_(30)
        own = float(apart(model(x), y)[:, STEPS // 2 :].mean())
    found = tt.diagnose(model, x, y, loss=loss, dependency_length=2)
    assert f"The model's loss is {own:.3g}, and" in found.text


class Reservoir(Last):
    def forward(self, x):
        with torch.no_grad():
            output, _ = self.rnn(self.embedding(x))
        return self.head(output[:, -1])


@pytest.mark.parametrize("is_frozen", [False, True])
def test_a_layer_that_training_does_not_change_is_named_as_frozen(is_frozen):
    """Autograd gives its weights no gradient, in the model that is trained."""
    model, x = Last() if is_frozen else Reservoir(), tokens()
    model.rnn.requires_grad_(not is_frozen)
    loss = nn.CrossEntropyLoss()
    loss(model(x), x[:, 1]).backward()
    assert model.rnn.weight_hh_l0.grad is None
    model.zero_grad()
    tree = tt.capture(model, x, x[:, 1], loss=loss)
    assert tree["rnn"].attrs["trainable"] == 0
    found = tt.diagnose(model, x, x[:, 1], loss=loss, dependency_length=6, solved=0.0)
    assert "frozen" in {each.name for each in found.layers["rnn"].why}
    assert {each.name for each in found.remedies} <= {"frozen"}


def test_units_of_a_relu_that_never_open_are_named_instead_of_a_kernel():
    model = Last()
    model.rnn = nn.RNN(6, 12, nonlinearity="relu", batch_first=True)
    with torch.no_grad():
        model.rnn.bias_ih_l0.fill_(-50.0)
    x, options = tokens(), {"loss": nn.CrossEntropyLoss(), "dependency_length": 6, "solved": 0.0}
    assert [each.name for each in tt.diagnose(model, x, x[:, 1], **options).remedies] == ["dead"]


class WithoutMemory(nn.Module):
    """Tags of all steps and the class of the last one, from a recurrent layer whose state forgets at once."""

    def __init__(self):
        super().__init__()
        self.rnn = nn.RNN(CLASSES, CLASSES, batch_first=True)
        self.tag, self.kind = nn.Linear(CLASSES, CLASSES), nn.Linear(CLASSES, 2)
        with torch.no_grad():
            self.rnn.weight_hh_l0.zero_()
            for weights in (self.rnn.weight_ih_l0, self.tag.weight):
                weights.copy_(3 * torch.eye(CLASSES))

    def forward(self, x):
        states = self.rnn(x)[0]
        return self.tag(states), self.kind(states[:, -1])


def of_both(output, y):
    tags, kind = y.values() if isinstance(y, dict) else y
    return apart(output[0], tags).mean() + functional.cross_entropy(output[1], kind)


@pytest.mark.parametrize("kept", [tuple, lambda y: dict(zip(("tags", "kind"), y, strict=True))])
def test_labels_of_several_tasks_are_not_taken_for_the_use_of_old_inputs(kept):
    tags = tokens()
    x = functional.one_hot(tags, CLASSES).float()
    found = tt.diagnose(WithoutMemory(), x, kept((tags, tags[:, -1] % 2)), loss=of_both, dependency_length=4)
    used = found.layers["rnn"].use
    assert used.answer == "not measured"
    assert "labels lie at several steps" in used.reason
    alone = tt.diagnose(
        WithoutMemory(), x, tags, loss=lambda output, y: apart(output[0], y), dependency_length=4
    )
    assert alone.layers["rnn"].use.answer == "no"


class Attends(WithoutMemory):
    """Each tag comes from the mean of all states so far."""

    def __init__(self, *, does=True):
        super().__init__()
        self.does = does

    def forward(self, x):
        states = self.rnn(x)[0]
        counts = torch.arange(1, STEPS + 1)[None, :, None]
        return self.tag(states.cumsum(1) / counts if self.does else states)


def test_use_by_attention_at_every_step_has_a_note_that_it_needs_no_memory():
    tags = tokens()
    x = functional.one_hot(tags, CLASSES).float()
    y = functional.one_hot(tags, CLASSES).cumsum(1).argmax(2)
    found = tt.diagnose(Attends(), x, y, loss=apart, dependency_length=2)
    assert found.verdict == "uses"
    assert any("without memory" in note for note in found.notes)


def test_a_tagger_that_remembers_has_no_such_note():
    x = tokens()
    y = x[:, :1].expand(-1, STEPS)
    found = tt.diagnose(trained(Tagger(), x, y, apart, 200), x, y, loss=apart, dependency_length=2)
    assert found.verdict == "uses"
    assert not any("without memory" in note for note in found.notes)


class Flat(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.rnn, self.head = nn.GRU(2, 6, batch_first=True), nn.Linear(6, 3)

    def forward(self, x):
        return self.head(self.rnn(x)[0][:, -1])


@pytest.mark.parametrize(
    "loss",
    [
        nn.CrossEntropyLoss(weight=torch.tensor([1.0, 9.0, 4.0])),
        nn.CrossEntropyLoss(reduction="sum"),
        nn.CrossEntropyLoss(ignore_index=2),
        nn.CrossEntropyLoss(label_smoothing=0.1),
    ],
)
def test_the_loss_of_a_diagnosis_is_that_of_the_batch(loss):
    x, y = torch.randn(40, 9, 2), torch.randint(3, (40,))
    model = Flat()
    expected = float(loss(model(x), y).detach())
    found = tt.diagnose(model, x, y, loss=loss, solved=expected * 0.999)
    assert found.loss == pytest.approx(expected, rel=1e-6)
    assert found.is_solved is False
    assert tt.diagnose(model, x, y, loss=loss, solved=expected * 1.001).is_solved


class Saturating(nn.Module):
    """A unit that keeps small inputs, and forgets at once where an input saturates it."""

    def __init__(self):
        super().__init__()
        self.rnn = nn.RNN(1, 1, batch_first=True)
        with torch.no_grad():
            for weight, value in zip(self.rnn.parameters(), (1.0, 0.9, 0.0, 0.0), strict=True):
                weight.fill_(value)

    def forward(self, x):
        return self.rnn(x)[0][..., 0]


@pytest.mark.parametrize(("weighted", "reach"), [(slice(0, 4), "yes"), (slice(4, 8), "no")])
def test_reach_is_that_of_the_steps_whose_loss_counts(weighted, reach):
    x = 0.01 * torch.randn(32, STEPS, 1)
    x[:, 4:] = 5  # a slope of 2e-4
    weights = np.zeros((32, STEPS), np.float32)
    weights[:, weighted] = 1
    found = tt.diagnose(
        Saturating(),
        x,
        torch.zeros(32, STEPS),
        loss=nn.MSELoss(reduction="none"),
        sample_weight=weights,
        dependency_length=2,
    )
    assert found.layers["rnn"].reach.answer == reach


class Tasks(nn.Module):
    """As many targets as steps, and one more, from the mean of the states."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.rnn = nn.GRU(1, 12, batch_first=True)
        self.many, self.one = nn.Linear(12, STEPS), nn.Linear(12, 1)

    def forward(self, x):
        mean = self.rnn(x)[0].mean(1)
        return self.many(mean), self.one(mean)


def of_tasks(output, y):
    return sum(functional.mse_loss(*pair) for pair in zip(output, y, strict=True))


def many(output, y):
    return functional.mse_loss(output[0], y)


def test_as_many_targets_as_steps_are_no_labels_of_steps():
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(96, STEPS, 1, generator=generator)
    y = x[..., 0] @ torch.randn(STEPS, STEPS, generator=generator), x[:, :1, 0]
    model = trained(Tasks(), x, y, of_tasks, 150)
    for labels, loss in ((y, of_tasks), (y[0], many)):
        found = tt.diagnose(model, x, labels, loss=loss, dependency_length=3)
        with torch.no_grad():  # the rise with older, and with all, inputs of another sample
            own, *exchanged = [
                np.mean(
                    [
                        float(loss(model(torch.cat([x.roll(each, 0)[:, :old], x[:, old:]], 1)), labels))
                        for each in range(1, 20)
                    ]
                )
                for old in (0, STEPS - 3, STEPS)
            ]
        share = (exchanged[0] - own) / (exchanged[1] - own)
        assert found.verdict == "uses"
        assert found.layers["rnn"].use.value == pytest.approx(share, abs=0.05)
        assert "lag matrix" not in str(found.notes)


def test_a_loss_with_weight_at_one_early_step_is_that_of_the_step():
    x = tokens(16)
    y = x[:, :1].expand(-1, 16)
    model = trained(Tagger(), x, y, apart, 200)
    weight = torch.zeros(SAMPLES, 16)
    weight[:, 5] = 1
    found = tt.diagnose(model, x, y, loss=apart, sample_weight=weight, dependency_length=5)
    ends = tt.diagnose(model, x[:, :6], y[:, 5], loss=at_end, dependency_length=5)
    assert found.verdict == ends.verdict == "uses"
    for name in ("reach", "use"):
        one, other = (getattr(each.layers["rnn"], name).value for each in (found, ends))
        assert one == pytest.approx(other, rel=1e-4), name
    beyond = tt.diagnose(model, x, y, loss=apart, sample_weight=weight, dependency_length=8)
    assert beyond.verdict == "cannot_say"


def at_end(output, y):
    return functional.cross_entropy(output[:, -1], y, reduction="none")


def test_loss_steps_are_drawn_among_those_with_weight():
    x, weight = tokens(), torch.zeros(SAMPLES, STEPS)
    weight[:, [2, 3, 6]] = torch.tensor([1.0, 0.5, 2.0])
    whole = tt.lag_matrix(Tagger(), x, x, loss=apart, sample_weight=weight)["rnn"]
    three = tt.lag_matrix(Tagger(), x, x, loss=apart, sample_weight=weight, loss_steps=5)["rnn"]
    assert three["loss_time"].values.tolist() == [2, 3, 6]
    assert not three["lag_mean_error"].values[:7].any()
    means = []
    for seed in range(40):
        two = tt.lag_matrix(Tagger(), x, x, loss=apart, sample_weight=weight, loss_steps=2, seed=seed)["rnn"]
        assert {*two["loss_time"].values} < {2, 3, 6}
        np.testing.assert_allclose(
            two["lag_matrix"], whole["lag_matrix"].sel(loss_time=two["loss_time"].values), rtol=1e-5
        )
        means.append(float(two["lag_mean"][0]))
    assert np.mean(means) == pytest.approx(float(three["lag_mean"][0]), rel=0.1)


@pytest.mark.parametrize("does", [False, True])
def test_attention_is_noted_whatever_the_weight_of_the_last_step(does):
    tags = tokens()
    x, weight = functional.one_hot(tags, CLASSES).float(), torch.ones(SAMPLES, STEPS)
    weight[:, -1] = 0
    model = Attends(does=does)
    found = tt.lag_matrix(model, x, tags, loss=apart, sample_weight=weight)
    assert found["rnn"].attrs["read_often"] == does
