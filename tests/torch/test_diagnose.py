"""`tt.diagnose` on models built on purpose: the quadrants of the verdict, invariances, bad input."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import throughtime as tt
from throughtime.adapters.optimizer import optimizer_step
from throughtime.diagnosis import Verdict
from throughtime.diagnosis.actions import actions

STEPS, LAG = 40, 30


class Last(nn.Module):
    """A recurrent layer whose last step is read."""

    def __init__(self, rnn, head):
        super().__init__()
        self.rnn, self.head = rnn, head

    def forward(self, x):
        return self.head(self.rnn(x)[0][:, -1])


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def reader(units):
    """Mean over units."""
    head = nn.Linear(units, 1)
    with torch.no_grad():
        head.weight.fill_(1 / units)
        head.bias.zero_()
    return head


def latch(forget=8.0):
    """An LSTM that keeps what it reads where its second input is 1, and hands it on."""
    lstm = nn.LSTM(2, 1, batch_first=True)
    with torch.no_grad():
        for weight in lstm.parameters():
            weight.zero_()
        lstm.weight_ih_l0[0, 1], lstm.bias_ih_l0[0] = 16, -8
        lstm.bias_ih_l0[1], lstm.weight_ih_l0[2, 0], lstm.bias_ih_l0[3] = forget, 1, 8
    return Last(lstm, reader(1)).double()


def linear_rnn(kernel, features=1):
    """A relu RNN: linear on inputs that are positive."""
    units = len(kernel)
    rnn = nn.RNN(features, units, batch_first=True, nonlinearity="relu")
    with torch.no_grad():
        for weight in rnn.parameters():
            weight.zero_()
        rnn.weight_ih_l0.fill_(1.0)
        rnn.weight_hh_l0.copy_(torch.as_tensor(kernel))
    return Last(rnn, reader(units)).double()


def to_remember(samples=32):
    """Inputs marked at the first step, labels with a little noise."""
    x = torch.randn(samples, STEPS, 2, generator=generator()).double()
    x[:, :, 1] = 0
    x[:, 0, 1] = 1
    noise = 0.05 * torch.randn(samples, 1, generator=generator(1)).double()
    with torch.no_grad():
        return x, latch()(x) + noise


def positive(samples=32, features=1):
    return torch.rand(samples, STEPS, features, generator=generator()).double() + 0.1


def diagnose(model, x, y, **options):
    return tt.diagnose(model, x, y, loss=nn.MSELoss(), **{"dependency_length": LAG, **options})


def told(found):
    """All that is printed, in one line."""
    return " ".join(str(found).split())


def answers(found, path="rnn"):
    layer = found.layers[path]
    return layer.use.answer, layer.reach.answer


def test_a_solved_memory_uses_and_is_reached():
    found = diagnose(latch(), *to_remember())
    assert (found.verdict, answers(found)) == (Verdict.USES, ("yes", "yes"))
    assert found.text.startswith("Yes: the model uses inputs 30 or more steps back")


def test_without_a_length_the_largest_lag_in_use_is_told():
    found = diagnose(latch(), *to_remember(), dependency_length=None)
    assert found.lag == 16
    assert found.verdict == Verdict.USES
    assert found.use_curve["lag"].values.tolist() == [1, 2, 4, 8, 16]


def identity_rnn():
    """Le, Jaitly & Hinton's start: the identity, relu, small inputs; labels it has not learned yet."""
    torch.manual_seed(0)
    rnn = nn.RNN(1, 32, batch_first=True, nonlinearity="relu")
    with torch.no_grad():
        rnn.weight_hh_l0.copy_(torch.eye(32))
        rnn.weight_ih_l0.normal_(0, 0.001, generator=generator())
        rnn.bias_ih_l0.zero_()
        rnn.bias_hh_l0.zero_()
    return Last(rnn, nn.Linear(32, 1)).double()


def test_an_identity_rnn_at_its_start_is_reached_and_does_not_use():
    x = torch.randn(256, STEPS, 1, generator=generator()).double()
    y = torch.randn(256, 1, generator=generator(1)).double()
    found = diagnose(identity_rnn(), x, y)
    assert (found.verdict, answers(found)) == (Verdict.UNUSED, ("no", "yes"))
    assert "vanishing gradients are not the reason" in found.text


def half_orthogonal():
    torch.manual_seed(0)
    rnn = nn.RNN(1, 32, batch_first=True)
    with torch.no_grad():
        nn.init.orthogonal_(rnn.weight_hh_l0, gain=0.5)
    return Last(rnn, nn.Linear(32, 1)).double()


def test_a_rnn_that_forgets_shows_no_evidence_and_gets_remedies():
    x = torch.randn(64, STEPS, 1, generator=generator()).double()
    y = x[:, 0]
    found = diagnose(half_orthogonal(), x, y, solved=0.01)
    assert (found.verdict, answers(found)) == (Verdict.NO_EVIDENCE, ("no", "no"))
    assert "so little gradient would teach it only slowly" in found.text
    remedy = found.remedies[0]
    assert "orthogonal" in remedy.text
    assert "spectral radius" in remedy.evidence
    assert "1504.00941" in remedy.source


def used_but_weak():
    """Weights of 0.8 a step, and early inputs large enough to matter all the same."""
    x = positive(64)
    x[:, : STEPS - LAG] *= 3000
    model = linear_rnn(0.8 * np.eye(1))
    with torch.no_grad():
        return model, x, model(x) + 0.1 * torch.randn(64, 1, generator=generator(1)).double()


def test_what_is_used_and_hardly_taught_is_told_apart():
    found = diagnose(*used_but_weak())
    assert (found.verdict, answers(found)) == (Verdict.WEAK_SIGNAL, ("yes", "no"))


def test_two_samples_with_equal_old_inputs_do_not_deny_that_these_are_used():
    x = positive(2)
    x[1, : STEPS - LAG] = x[0, : STEPS - LAG]
    model = linear_rnn(np.eye(1))  # returns the sum of all inputs
    with pytest.warns(tt.ThroughTimeWarning, match="2 samples"):
        found = diagnose(model, x, model(x).detach() + 0.1)
    (used,) = [each.use for each in found.layers.values()]
    assert (used.answer, used.n) == ("unclear", 2)
    assert "only two samples exchange inputs that old" in found.text
    assert next(iter(actions(found))).text == "Pass 16 or more samples"


def test_a_loss_that_is_not_finite_on_single_samples_is_the_reason_why_use_was_not_measured():
    def of_batch(output, y):
        return ((output - y) ** 2).mean() / (y - y.mean()).square().mean()

    x = positive(32)
    found = tt.diagnose(linear_rnn(np.eye(1)), x, x[:, 0], loss=of_batch, dependency_length=LAG)
    (used,) = [each.use for each in found.layers.values()]
    assert used.answer == "not measured"
    assert used.reason == "the loss of single samples cannot be evaluated: it is not finite"


def test_samples_of_one_class_do_not_deny_that_old_inputs_are_used():
    """The class is the sign of the first input, which the latch keeps; each is told with certainty."""
    x = torch.randn(64, STEPS, 2, generator=generator()).double()
    x[..., 1] = 0
    x[:, 0, 1] = 1
    x[:, 0, 0] = x[:, 0, 0].sign()

    def likelihood(output, y):
        return nn.functional.binary_cross_entropy_with_logits(9 * output, y)

    classes = (x[:, :1, 0] > 0).double()
    for rows, answer in ((slice(None), "yes"), (classes[:, 0] > 0, "not measured")):
        found = tt.diagnose(latch(), x[rows], classes[rows], loss=likelihood, dependency_length=LAG)
        (used,) = [each.use for each in found.layers.values()]
        assert used.answer == answer
    assert "equal labels" in used.reason
    assert next(iter(actions(found))).text.startswith("Pass samples with different inputs")


def test_an_exploding_rnn_is_unstable_with_norms():
    x = positive()
    found = diagnose(linear_rnn(1.3 * np.eye(2)), x, torch.zeros(32, 1).double(), solved=0.0)
    assert found.verdict == Verdict.UNSTABLE
    assert "Gradient norm of the recurrent weights: " in found.text
    clipping, kernel = found.remedies
    assert clipping.text.startswith("clip the gradient by its norm")
    assert "exponent of the states 0.262," in kernel.evidence, "ln 1.3"
    assert "multiplies a gradient in that direction by 1.3;" in kernel.evidence
    assert "spectral radius of the recurrent kernel 1.3" in kernel.evidence


def test_the_pasted_clip_lets_a_step_change_the_recurrent_weights_by_one_percent():
    model, x, y = linear_rnn(1.3 * np.eye(2)), positive(), torch.zeros(32, 1).double()
    optimizer, loss = torch.optim.SGD(model.parameters(), 1e-3), nn.MSELoss()(model(x), y)
    (code,) = (
        each.code for each in actions(diagnose(model, x, y, optimizer=optimizer)) if "Clip" in each.text
    )
    before = model.rnn.weight_hh_l0.detach().clone()
    exec(code, {"torch": torch, "model": model, "loss": loss, "optimizer": optimizer})
    change = float((model.rnn.weight_hh_l0.detach() - before).norm() / before.norm())
    assert 0.001 < change < 0.0105, "two digits of the threshold are printed"


def test_growth_that_does_no_harm_is_explained_with_the_size_of_the_step():
    model, x, y = linear_rnn(1.3 * np.eye(2)), positive(), torch.zeros(32, 1).double()
    optimizer = torch.optim.SGD(model.parameters(), 1e-12)
    nn.MSELoss()(model(x), y).backward()
    step = 1e-12 * float(model.rnn.weight_hh_l0.grad.norm() / model.rnn.weight_hh_l0.detach().norm())
    found = diagnose(model, x, y, optimizer=optimizer)
    assert found.verdict != Verdict.UNSTABLE
    assert "no fault in itself" in found.text
    assert f"changes the recurrent weights by {step:.3g} times their norm" in found.text


def test_the_pasted_kernel_of_spectral_radius_1_no_longer_explodes():
    model, x, y = linear_rnn(1.3 * np.eye(2)), positive(), torch.zeros(32, 1).double()
    (code,) = (each.code for each in actions(diagnose(model, x, y)) if "spectral radius" in each.text)
    exec(code, {"torch": torch, "model": model})
    found = diagnose(model, x, y)
    assert found.verdict != Verdict.UNSTABLE
    assert next(each.value for each in found.why if each.name == "spectrum") == pytest.approx(1.0)


def test_remedies_need_a_length_and_a_loss_above_solved():
    x = torch.randn(64, STEPS, 1, generator=generator()).double()
    model, y = half_orthogonal(), x[:, 0]
    assert diagnose(model, x, y).remedies == ()
    assert diagnose(model, x, y, solved=1e6).remedies == ()
    assert diagnose(model, x, y, solved=0.01, dependency_length=None).remedies == ()


def test_a_task_of_the_last_step_is_never_told_that_it_vanishes():
    x = positive(64)
    model = linear_rnn(np.zeros((1, 1)))
    y = x[:, -1]
    for options in ({"dependency_length": None}, {"dependency_length": None, "solved": 1.0}):
        found = diagnose(model, x, y + 0.01 * torch.randn(64, 1, generator=generator(1)).double(), **options)
        assert found.verdict == Verdict.NO_EVIDENCE
        assert "vanish" not in told(found)
    asked = diagnose(model, x, y + 0.01, solved=1.0)
    assert "the task does not need this lag" in asked.text
    assert "nothing needs to be changed" in asked.text
    assert asked.remedies == ()


@pytest.mark.parametrize("change", ["inputs", "loss", "units"])
def test_scaling_leaves_the_verdict_as_it_was(change):
    x = positive(64)
    model = linear_rnn(0.97 * np.eye(1))
    with torch.no_grad():
        y = model(x) + 0.1 * torch.randn(64, 1, generator=generator(1)).double()
    before = diagnose(model, x, y)
    if change == "inputs":
        scaled = linear_rnn(0.97 * np.eye(1))
        with torch.no_grad():
            scaled.rnn.weight_ih_l0.mul_(0.01)
        after = diagnose(scaled, 100 * x, y)
    elif change == "loss":
        after = tt.diagnose(
            model, x, y, loss=lambda output, y: 1000 * ((output - y) ** 2).mean(), dependency_length=LAG
        )
    else:
        after = diagnose(linear_rnn(0.97 * np.eye(8)), x, y)
    assert after.verdict == before.verdict
    for question in ("reach", "share", "use"):
        one, other = (getattr(found.layers["rnn"], question) for found in (before, after))
        assert (one.answer, one.value) == (other.answer, pytest.approx(other.value, rel=1e-6))


class Masked(nn.Module):
    """Reads packed sequences, so that padding is no time."""

    def __init__(self, inner, lengths):
        super().__init__()
        self.inner, self.lengths = inner, lengths

    def forward(self, x):
        packed = nn.utils.rnn.pack_padded_sequence(x, self.lengths, batch_first=True, enforce_sorted=False)
        _, states = self.inner.rnn(packed)
        last = states[0] if isinstance(states, tuple) else states
        return self.inner.head(last[-1])


def test_padding_does_not_count_as_time():
    x, y = to_remember()
    lengths = [STEPS] * 16 + [34] * 16
    padded = x.clone()
    padded[16:, 34:] = 7.0
    found, other = (diagnose(Masked(latch(), lengths), each, y) for each in (x, padded))
    assert found.verdict == Verdict.USES
    assert found.to_dict() == other.to_dict()
    assert "masked" in told(found)
    short = diagnose(Masked(latch(), lengths), padded, y, dependency_length=36)
    layer = next(iter(short.layers.values()))
    assert layer.use.n == layer.reach.n == 16, "sequences of 34 steps have no lag 36"


class Ends(nn.Module):
    """Reads what each direction ends with."""

    def __init__(self, features=1):
        super().__init__()
        self.rnn = nn.RNN(features, 1, batch_first=True, bidirectional=True, nonlinearity="relu")
        with torch.no_grad():
            for weight in self.rnn.parameters():
                weight.zero_()
            self.rnn.weight_ih_l0.fill_(1)
            self.rnn.weight_ih_l0_reverse.fill_(1)
            self.rnn.weight_hh_l0.fill_(0.5)
            self.rnn.weight_hh_l0_reverse.fill_(0.99)

    def forward(self, x):
        states = self.rnn(x)[0]
        return states[:, -1, :1] + states[:, 0, 1:]


def test_each_direction_is_judged_for_itself():
    model, x = Ends().double(), positive(64)
    with torch.no_grad():
        y = model(x) + 0.1 * torch.randn(64, 1, generator=generator(1)).double()
    found = diagnose(model, x, y, dependency_length=15)
    assert answers(found, "rnn[forward]") == ("yes", "no")
    assert answers(found, "rnn[backward]") == ("yes", "yes")
    assert "from both ends" in told(found)
    assert "rnn[backward]" in told(found)


@pytest.mark.parametrize(
    "kind", [torch.optim.Adam, torch.optim.Adamax, torch.optim.Adadelta, torch.optim.SGD]
)
def test_the_rate_bounds_the_steps_of_some_optimizers(kind):
    weight = nn.Parameter(torch.zeros(1))
    optimizer = kind([weight], lr=0.1)
    for _ in range(20):
        before, weight.grad = weight.item(), torch.full((1,), 100.0)
        optimizer.step()
    moved = abs(weight.item() - before) / 0.1
    assert optimizer_step(optimizer).is_bounded == (0.5 < moved < 1.5)


class EveryStep(nn.Module):
    def __init__(self, decay):
        super().__init__()
        self.inner = linear_rnn(decay * np.eye(1))

    def forward(self, x):
        return self.inner.head(self.inner.rnn(x)[0])[..., 0]


def squares(output, y):
    return (output - y) ** 2


class Reversing(nn.Module):
    """Reads the last input first; its output of 2 or 3 axes is in that order, or in that of the inputs."""

    def __init__(self, inner, axes=2, is_turned_back=True):
        super().__init__()
        self.inner, self.axes, self.is_turned_back = inner, axes, is_turned_back

    def forward(self, x):
        given = self.inner(x.flip(1))
        given = given.flip(1) if self.is_turned_back else given
        return given if self.axes == 2 else given[..., None]


@pytest.mark.parametrize("is_turned_back", [True, False])
@pytest.mark.parametrize("axes", [2, 3])
@pytest.mark.parametrize(("decay", "answer"), [(0.5, "no"), (0.95, "yes")])
def test_a_model_that_reverses_time_is_judged_in_the_order_in_which_it_reads(
    decay, answer, axes, is_turned_back
):
    model, x = Reversing(EveryStep(decay), axes, is_turned_back).double(), positive(32)
    with torch.no_grad():
        y = model(x)
        y = y + 0.05 * torch.randn(y.shape, generator=generator(1)).double()
    found = tt.diagnose(model, x, y, loss=nn.MSELoss(), dependency_length=12)
    (layer,) = found.layers.values()
    assert (layer.use.answer, layer.reach.answer) == (answer, answer)
    assert layer.reach.value == pytest.approx(decay**12, rel=1e-5)


def padded(samples=64):
    x = positive(samples)
    for sample, length in zip(x, 25 + np.arange(samples) % 13, strict=True):
        sample[length:] = 9.0
    return x


@pytest.mark.parametrize("is_padding", [True, False])
def test_samples_that_end_in_equal_steps_may_be_padded(is_padding):
    model, x = linear_rnn(0.5 * np.eye(1)), padded()
    x[0, 3] = 9.0 if not is_padding else x[0, 3]  # then it is a value like any other
    with torch.no_grad():
        y = model(x) + 0.1 * torch.randn(64, 1, generator=generator(1)).double()
    found = diagnose(model, x, y)
    assert answers(found, "rnn") == ("no", "no")
    proposed = [each.text.lower() for each in actions(found)]
    assert any("if the equal steps at the end" in text for text in proposed) == is_padding


def test_padding_does_not_hide_that_gradients_explode():
    model, x = linear_rnn(1.6 * np.eye(2)), padded()
    optimizer = torch.optim.SGD(model.parameters(), 1.0)
    found = diagnose(model, x, torch.randn(64, 1, generator=generator(1)).double(), optimizer=optimizer)
    assert found.verdict == Verdict.UNSTABLE
    assert any("clip" in each.text.lower() for each in actions(found))


def test_padding_at_the_start_with_time_first_is_no_padding_at_the_end():
    class TimeFirst(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = linear_rnn(0.5 * np.eye(1))

        def forward(self, x):
            return self.inner(x.transpose(0, 1))

    x = padded(STEPS - 8).flip(1).transpose(0, 1).contiguous()  # sorted by length below
    x = x[:, (x == 9.0).sum((0, 2)).argsort()]
    found = diagnose(TimeFirst(), x, torch.randn(STEPS - 8, 1, generator=generator(1)).double())
    assert not any("steps at the end" in each.text for each in actions(found))


@pytest.mark.parametrize("held", ["head", "all", "of another model"])
def test_a_layer_that_the_optimizer_does_not_hold_is_named(held):
    model, x = linear_rnn(0.5 * np.eye(1)), positive(64)
    trained = {"head": model.head, "all": model, "of another model": linear_rnn(np.eye(1))}[held]
    optimizer = torch.optim.Adam(trained.parameters())
    found = diagnose(model, x, torch.zeros(64, 1).double(), optimizer=optimizer)
    assert ("frozen" in found.layers["rnn"].evidence) == (held == "head")
    assert any("its weights in the optimizer" in each.text for each in actions(found)) == (held == "head")


@pytest.mark.parametrize("decay", [0.5, 0.99])
def test_the_last_step_of_a_reversed_sequence_is_its_first_input(decay):
    model, x = Reversing(linear_rnn(decay * np.eye(1))).double(), positive(64)
    with torch.no_grad():
        y = model(x) + 0.1 * torch.randn(64, 1, generator=generator(1)).double()
    found = diagnose(model, x, y, dependency_length=15)
    assert answers(found, "inner/rnn") == (("yes", "yes") if decay > 0.9 else ("no", "no"))
    assert found.layers["inner/rnn"].reach.value == pytest.approx(decay**15, rel=1e-5)


class FromFirst(nn.Module):
    """Reads differences to the first input, which so enters every step but the first."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(2 + x - x[:, :1])  # relu leaves what is positive


def test_differences_to_the_first_input_do_not_reverse_time():
    model, x = FromFirst(linear_rnn(0.5 * np.eye(1))).double(), positive(64)
    with torch.no_grad():
        y = model(x) + 0.1 * torch.randn(64, 1, generator=generator(1)).double()
    found = diagnose(model, x, y, dependency_length=12)
    assert answers(found, "inner/rnn") == ("yes", "no")  # the first input is used, beside the layer's states
    # Shares of the output's variance: the first input has factor 2, the others 0.5^lag.
    assert found.layers["inner/rnn"].use.value == pytest.approx(4 / (4 + 4 / 3), abs=0.1)
    assert found.layers["inner/rnn"].reach.value == pytest.approx(0.5**12, rel=1e-5)


@pytest.mark.parametrize(("decay", "reach"), [(0.5, "no"), (0.95, "yes")])
def test_a_loss_at_every_step_is_judged_by_the_lag_matrix(decay, reach):
    model, x = EveryStep(decay).double(), positive(32)
    with torch.no_grad():
        y = model(x) + 0.05 * torch.randn(32, STEPS, generator=generator(1)).double()
    found = tt.diagnose(model, x, y, loss=squares, dependency_length=12)
    layer = next(iter(found.layers.values()))
    assert layer.reach.answer == reach
    assert layer.reach.value == pytest.approx(decay**12, rel=1e-5)
    assert layer.use.answer == reach
    assert "lag matrix" in told(found)


def test_the_largest_lag_is_measured_if_the_draw_has_not_its_loss():
    model, x = EveryStep(0.95).double(), positive(32)
    seed = next(s for s in range(9) if 39 not in np.random.default_rng(s).choice(STEPS, 32, replace=False))
    found = tt.diagnose(model, x, torch.zeros(32, STEPS), loss=squares, dependency_length=39, seed=seed)
    assert next(iter(found.layers.values())).reach.value == pytest.approx(0.95**39, rel=1e-5)


@pytest.mark.parametrize("size", [1.0, 1e4])
def test_inputs_far_from_scaled_are_named(size):
    torch.manual_seed(0)
    model, x = Last(nn.LSTM(1, 8, batch_first=True), nn.Linear(8, 1)), torch.randn(64, STEPS, 1)
    found = tt.diagnose(model, size * x, x[:, 0], loss=nn.MSELoss(), dependency_length=LAG)
    assert any("scale the layer's inputs" in each.text for each in actions(found)) == (size > 1)


def test_large_inputs_that_drive_nothing_to_an_end_are_no_cause():
    torch.manual_seed(0)
    model, x = Last(nn.RNN(1, 8, batch_first=True), nn.Linear(8, 1)), torch.randn(64, STEPS, 1)
    with torch.no_grad():
        for weight in model.rnn.parameters():
            weight.mul_(1e-3)
    found = tt.diagnose(model, 100 * x, x[:, 0], loss=nn.MSELoss(), dependency_length=LAG)
    assert "wide" not in found.layers["rnn"].evidence


@pytest.mark.parametrize(("noise", "looked_at"), [(0.01, 4), (0.3, 16)])
def test_more_of_the_steps_are_looked_at_where_use_is_unclear(monkeypatch, noise, looked_at):
    model, x, seen = EveryStep(0.5).double(), positive(16), set()
    with torch.no_grad():
        y = model(x) + noise * torch.randn(16, STEPS, generator=generator(1)).double()
    losses = tt.Probe.losses

    def watched(self, *arguments, step=None, **options):
        seen.add(step)
        return losses(self, *arguments, step=step, **options)

    monkeypatch.setattr(tt.Probe, "losses", watched)
    found = tt.diagnose(model, x, y, loss=squares, dependency_length=3)
    assert len(seen - {None}) == looked_at, found
    assert next(iter(found.layers.values())).use.n == 16


def test_a_loss_at_every_step_without_a_lag_matrix_has_no_reach():
    model, x = EveryStep(0.5).double(), positive(32)
    y = torch.zeros(32, STEPS).double()

    def loss(output, y):  # of the mean over steps, which is no mean of losses
        return ((output - y).mean(1) ** 2).mean()

    found = tt.diagnose(model, x, y, loss=loss, dependency_length=12)
    assert next(iter(found.layers.values())).reach.answer == "not measured"
    assert found.verdict == Verdict.CANNOT_SAY


def test_the_same_seed_gives_the_same_diagnosis():
    model, (x, y) = latch(), to_remember()
    first, second, other = (diagnose(model, x, y, seed=seed).to_dict() for seed in (0, 0, 1))
    assert first == second
    assert first != other


def test_batches_of_a_dataset_count_together():
    x, y = to_remember(48)
    dataset = [(x[:16], y[:16]), (x[16:32], y[16:32]), (x[32:], y[32:])]
    found = tt.diagnose(latch(), iter_of(dataset), loss=nn.MSELoss(), dependency_length=LAG, batches=3)
    assert found.samples == 48
    assert found.layers["rnn"].use.n == 48
    assert found.verdict == Verdict.USES


def test_inputs_that_do_harm_are_found_beside_a_batch_without_partners():
    x, y = to_remember(33)[0], 0.3 * torch.randn(33, 1, generator=generator(2))
    dataset = [(x[:16], y[:16]), (x[16:17], y[16:17]), (x[17:], y[17:])]
    found = tt.diagnose(latch(), iter_of(dataset), loss=nn.MSELoss(), dependency_length=LAG, batches=3)
    assert found.layers["rnn"].use.answer == "no"
    assert found.verdict == Verdict.UNUSED
    assert told(found).count("if all samples get the same inputs") == 1
    assert [each.text.partition(".")[0] for each in actions(found)] == ["Compare the loss on training data"]


class Batches:
    def __init__(self, items):
        self.items = items

    def __iter__(self):
        return iter(self.items)


def iter_of(items):
    return Batches(items)


def test_what_couples_samples_cannot_lend_inputs():
    x, y = to_remember()

    def contrast(output, y):
        return ((output - output.mean(0)) ** 2).mean() + (output - y).mean() ** 2

    found = tt.diagnose(latch(), x, y, loss=contrast, dependency_length=LAG)
    assert found.layers["rnn"].use.answer == "not measured"
    assert "couples samples" in found.text


def test_one_sample_is_no_sample():
    x, y = to_remember()
    with pytest.warns(tt.ThroughTimeWarning, match="A single sample"):
        found = diagnose(latch(), x[:1], y[:1])
    assert found.verdict == Verdict.CANNOT_SAY
    assert "no partner to exchange inputs with" in found.text


def test_equal_inputs_say_nothing():
    x, y = to_remember()
    found = diagnose(latch(), x[:1].repeat(32, 1, 1), y, dependency_length=None)
    assert found.verdict == Verdict.CANNOT_SAY
    assert "equal inputs" in found.text
    assert [each.text for each in actions(found)] == [
        "Pass samples with different inputs and different labels: use cannot be measured if either are equal"
    ]


class Pooled(Last):
    """A recurrent layer whose steps are averaged."""

    def forward(self, x):
        return self.head(self.rnn(x)[0].mean(1))


def test_use_of_old_inputs_without_memory_has_a_note():
    rnn = nn.RNN(1, 4, batch_first=True)
    with torch.no_grad():
        rnn.weight_hh_l0.zero_()  # a state contains the newest input alone
    x = torch.randn(64, STEPS, 1, generator=generator())
    note = "without memory"
    for model, uses in ((Pooled(rnn, reader(4)), True), (Last(rnn, reader(4)), False)):
        y = model(x).detach() + 0.01 * torch.randn(64, 1, generator=generator(1))
        found = diagnose(model, x, y, dependency_length=10)
        assert (found.layers["rnn"].use.answer == "yes") is uses
        assert any(note in each for each in found.notes) is uses
    found = diagnose(latch(), *to_remember())
    assert not any(note in each for each in found.notes)


def test_units_that_are_dead_are_named_without_a_length():
    model = Last(nn.RNN(1, 4, batch_first=True, nonlinearity="relu"), reader(4)).double()
    with torch.no_grad():
        model.rnn.bias_ih_l0.fill_(-1e3)
    x = positive()
    found = diagnose(model, x, x[:, 0] + 1, dependency_length=None)
    texts = [each.text for each in actions(found)]
    assert any(text.startswith("If the loss is too high, scale the layer's inputs") for text in texts)


def test_a_loss_that_is_zero_decides_nothing():
    x, y = to_remember()
    model = latch()
    with torch.no_grad():
        y = model(x)
    found = diagnose(model, x, y)
    assert found.verdict == Verdict.CANNOT_SAY
    assert "the loss is 0" in found.text


@pytest.mark.parametrize("length", [0, -3, 2.5, "long", True])
def test_a_length_that_is_none_is_refused(length):
    x, y = to_remember()
    with pytest.raises(tt.DiagnosticError, match="whole number of timesteps"):
        diagnose(latch(), x, y, dependency_length=length)


def test_a_model_without_recurrent_layers_is_refused():
    with pytest.raises(tt.LayerNotFoundError, match="recurrent"):
        tt.diagnose(nn.Linear(2, 1), torch.ones(4, 2), torch.ones(4, 1), loss=nn.MSELoss())


def test_steps_before_samples_are_exchanged_as_well():
    x, y = to_remember()
    model = latch()
    model.rnn.batch_first = False
    model.forward = lambda x: model.head(model.rnn(x)[0][-1])
    found = diagnose(model, x.transpose(0, 1).contiguous(), y)
    assert found.verdict == Verdict.USES


def test_early_and_late_compare():
    x, y = to_remember()
    late = diagnose(latch(), x, y)
    early = diagnose(latch(forget=0.0), x, y)
    table = tt.compare(early, late).to_dataframe().set_index("question")
    assert table.loc["reach", "change"] > 1e6
    assert table.loc["use", "differs"] == "yes"
    assert "a: " in str(tt.compare(early, late))
    with pytest.raises(tt.DiagnosticError, match="same dependency_length"):
        tt.compare(early, diagnose(latch(), x, y, dependency_length=5))


def test_a_model_is_left_as_it_was():
    model, (x, y) = latch(), to_remember()
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    kept, state = x.clone(), torch.get_rng_state()
    diagnose(model, x, y)
    assert torch.equal(x, kept)
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(weight, before[name]) for name, weight in model.named_parameters())
