"""A diagnosis in a few lines: each headline, three measures, and code that does what it promises."""

from __future__ import annotations

import importlib
from dataclasses import replace

import numpy as np
import pytest

import throughtime as tt
from throughtime import testing
from throughtime.diagnosis import causes
from throughtime.diagnosis.actions import actions
from throughtime.diagnosis.brief import Brief, below_headline, facts, headline, tone
from throughtime.diagnosis.results import Answer, Evidence, LayerDiagnosis, Remedy, Results, Verdict
from throughtime.diagnosis.words import phrase


def found(verdict: Verdict, *layers: LayerDiagnosis, asked: int | None = 30, **more) -> Results:
    named = {f"layer_{place}": each for place, each in enumerate(layers)}
    return Results(verdict, ("Told.",), 30, asked, layers=named, **more)


def layer(reach: str, value: float, horizon: str, kind: str = "lstm", **more) -> LayerDiagnosis:
    answer = Answer(reach, value, (value, value), 16, 0.01)
    use = Answer("no", -1e-6, (-0.02, 0.004), 16, 0.01)
    return LayerDiagnosis(kind, answer, answer, use, horizon=horizon, **more)


@pytest.mark.parametrize(
    ("verdict", "reach", "asked", "words", "colour"),
    [
        (Verdict.USES, "yes", 30, "uses inputs 30 or more", "good"),
        (Verdict.WEAK_SIGNAL, "no", 30, "little gradient", "open"),
        (Verdict.UNUSED, "yes", 30, "does not use inputs that old yet", "open"),
        (Verdict.NO_EVIDENCE, "no", 30, "vanishes before lag 30", "bad"),
        (Verdict.NO_EVIDENCE, "no", None, "newest input alone", "open"),
        (Verdict.CANNOT_SAY, "yes", 30, "reaches lag 30", "open"),
        (Verdict.CANNOT_SAY, "unclear", 30, "does not use inputs 30 or more steps back; reach is", "open"),
        (Verdict.UNUSED, "yes", None, "newest input alone", "open"),
        (Verdict.UNSTABLE, "yes", 30, "a number is not finite", "unstable"),
    ],
)
def test_headline_of_each_verdict(verdict, reach, asked, words, colour):
    one = found(verdict, layer(reach, 0.02, "40"), asked=asked)
    assert words in headline(one)
    assert tone(one) == colour


def test_a_model_that_is_not_finite_goes_back_and_clips():
    one = found(Verdict.UNSTABLE, stopped="nonfinite", framework="torch")
    (action,) = actions(one)
    assert action.text.startswith("Go back to weights from before")
    assert "clip_grad_norm_" in action.code


def test_headline_names_the_layers_that_differ_and_those_that_explode():
    both = found(Verdict.CANNOT_SAY, layer("yes", 0.5, "≥ 99"), layer("no", 1e-4, "9"))
    assert headline(both) == "The gradient reaches lag 30 in layer_0, and not in layer_1"
    exploding = found(Verdict.UNSTABLE, replace(layer("yes", 5.0, "≥ 99"), verdict=Verdict.UNSTABLE))
    assert headline(exploding) == "Unstable: the gradient explodes in layer_0"


def test_below_the_headline_its_sentence_is_not_repeated():
    told = "Yes: the model uses inputs 30 or more steps back. At lag 30 the gradient is 12 %."
    uses = replace(found(Verdict.USES, layer("yes", 0.5, "≥ 99")), sentences=(told,))
    assert below_headline(uses) == "At lag 30 the gradient is 12 %."
    assert below_headline(replace(uses, sentences=("Yes.",))) == "Yes."
    assert below_headline(replace(uses, verdict=Verdict.UNUSED)) == told


def test_measures_begin_with_the_weakest_layer():
    layers = [layer("yes", 0.5, "≥ 99"), layer("no", 1e-9, "9"), *[layer("yes", 0.2, "40")] * 3]
    reach, use, horizon = facts(found(Verdict.NO_EVIDENCE, *layers))
    assert (reach.value, use.value, horizon.value) == ("< 0.001 %", "0 %", "9 steps")
    assert reach.detail.startswith("layer_1 < 0.001 %, ")
    assert reach.detail.endswith("2 more up to 50 %")
    assert use.detail == "95 % interval: -2 to 0.4 %"


def test_brief_is_brief_and_nothing_measured_leaves_the_sentence():
    text = str(Brief(tt.diagnose(testing.decaying(rate=0.5, samples=16), dependency_length=20)))
    assert "The gradient vanishes before lag 20." in text
    assert len(text.splitlines()) < 20
    assert "Told." in str(Brief(found(Verdict.CANNOT_SAY)))


TIMESCALE = Evidence("timescale", 3.0, "timescales of 3 steps")
CHRONO = Remedy("start the bias so", TIMESCALE.text, "a source", "chrono")


@pytest.mark.parametrize("framework", ["keras", "torch"])
@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_code_to_paste_gives_the_gate_that_keeps_timescales_up_to_the_lag(framework, kind):
    make = pytest.importorskip(framework) and {"keras": keras_layer, "torch": torch_layer}[framework]
    model, name, keeping_bias = make(kind)
    lost = layer("no", 1e-9, "9", kind, why=(TIMESCALE,))
    one = Results(
        Verdict.NO_EVIDENCE, ("Told.",), 30, 30, layers={name: lost}, remedies=(CHRONO,), framework=framework
    )
    (code,) = [each.code for each in actions(one)]
    exec(code, {"model": model, "np": np, framework: importlib.import_module(framework)})
    bias = keeping_bias(model)
    assert (bias >= 0).all()
    assert (bias <= np.log(29)).all()
    assert np.ptp(bias) > 1, "timescales differ from unit to unit"


def keras_layer(kind):
    import keras

    one = {"lstm": keras.layers.LSTM, "gru": keras.layers.GRU}[kind](40, name="rnn")
    model = keras.Sequential([keras.Input((5, 2)), one])
    places = {"lstm": slice(40, 80), "gru": slice(0, 40)}  # i f c o; z r h
    return model, "rnn", lambda made: np.atleast_2d(made.get_layer("rnn").get_weights()[2])[0, places[kind]]


def torch_layer(kind):
    import torch

    model = torch.nn.ModuleDict({"rnn": {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU}[kind](2, 40)})

    def keeping(made):  # i f g o; r z n
        return (made["rnn"].bias_ih_l0 + made["rnn"].bias_hh_l0).detach().numpy()[40:80]

    return model, "rnn/0", keeping


@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_code_to_paste_works_on_a_layer_that_is_the_model(kind):
    torch = pytest.importorskip("torch")
    model = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU}[kind](2, 40)
    lost = layer("no", 1e-9, "9", kind, why=(TIMESCALE,))
    one = replace(found(Verdict.NO_EVIDENCE), layers={kind: lost}, framework="torch")
    (code,) = [each.code for each in actions(one)]
    exec(code, {"model": model, "torch": torch})
    assert np.ptp((model.bias_ih_l0 + model.bias_hh_l0).detach().numpy()[40:80]) > 1


@pytest.mark.parametrize("framework", ["keras", "torch"])
def test_code_to_paste_changes_each_layer_that_needs_it(framework):
    module = pytest.importorskip(framework)
    if framework == "keras":
        both = module.layers.Bidirectional(module.layers.LSTM(40), name="rnn")
        model, names = module.Sequential([module.Input((5, 2)), both]), ["rnn[forward]", "rnn[backward]"]
    else:
        model = module.nn.ModuleDict({"rnn": module.nn.LSTM(2, 40, num_layers=2, bidirectional=True)})
        names = [f"rnn/{number}[{direction}]" for number in "01" for direction in ("forward", "backward")]
    lost = layer("no", 1e-9, "9", why=(TIMESCALE,))
    one = replace(found(Verdict.NO_EVIDENCE), layers=dict.fromkeys(names, lost), framework=framework)
    (code,) = [each.code for each in actions(one)]
    exec(code, {"model": model, "np": np, framework: module})
    if framework == "keras":
        biases = [half.get_weights()[2] for half in (both.forward_layer, both.backward_layer)]
    else:
        biases = [each.detach().numpy() for name, each in model.named_parameters() if "bias_ih" in name]
    assert len(biases) == len(names)
    for bias in biases:  # i f c o
        assert np.ptp(bias[40:80]) > 1
        assert (bias[40:80] <= np.log(29)).all()
        np.testing.assert_array_equal(bias[:40], -bias[40:80])


def test_code_to_paste_changes_a_layer_of_several_calls_once():
    torch = pytest.importorskip("torch")
    model = torch.nn.ModuleDict({"rnn": torch.nn.LSTM(2, 40)})
    lost = layer("no", 1e-9, "9", why=(TIMESCALE,))
    named = dict.fromkeys(["rnn", "rnn@2"], lost)
    (code,) = [
        each.code for each in actions(replace(found(Verdict.NO_EVIDENCE), layers=named, framework="torch"))
    ]
    exec(code, {"model": model, "np": np, "torch": torch})
    assert np.ptp(model["rnn"].bias_ih_l0.detach().numpy()[40:80]) > 1
    assert code.count("layer =") == 1


def test_the_keras_remedy_of_a_misread_layer_reads_both_ends():
    keras = pytest.importorskip("keras")
    remedy = causes.reading_remedy("rnn[backward]")
    one = found(Verdict.UNUSED, layer("yes", 0.5, "≥ 99"), remedies=(remedy,), framework="keras")
    action = next(iter(actions(one)))
    assert "torch" not in f"{action.text} {action.code}".lower()
    ends = eval(action.code, {"keras": keras, "units": 4})
    steps = keras.layers.Bidirectional(keras.layers.LSTM(4, return_sequences=True))
    x = np.random.default_rng(0).normal(size=(3, 6, 2)).astype("float32")
    out = keras.ops.convert_to_numpy(steps(x))
    ends.build(x.shape)
    ends.set_weights(steps.get_weights())
    expected = np.concatenate([out[:, -1, :4], out[:, 0, 4:]], 1)
    np.testing.assert_allclose(keras.ops.convert_to_numpy(ends(x)), expected, rtol=1e-5, atol=1e-6)


def test_a_solved_model_has_nothing_to_change_and_an_unmeasured_use_is_to_be_measured():
    lost = found(Verdict.NO_EVIDENCE, layer("no", 1e-9, "9"))
    assert "Nothing has to change" not in [each.text for each in actions(lost)]
    assert [each.text for each in actions(replace(lost, is_solved=True))] == ["Nothing has to change"]
    unmeasured = tt.diagnose(testing.decaying(rate=0.5, samples=16), dependency_length=20)
    first = next(actions(unmeasured))
    assert "Measure use" in first.text
    assert "dependency_length=20" in first.code


def test_advice_holds_only_if_the_task_needs_the_lag():
    lost = layer("no", 1e-9, "9", why=(TIMESCALE,))
    texts = [each.text for each in actions(found(Verdict.NO_EVIDENCE, lost))]
    assert texts[0].startswith("If the loss is too high, initialise the forget gate's bias")
    assert not list(actions(found(Verdict.NO_EVIDENCE, lost, asked=None)))[1:]


def test_without_a_loss_to_reach_a_used_lag_has_nothing_to_change_only_if_the_loss_is_good():
    used = found(Verdict.USES, layer("yes", 0.5, "≥ 99"))
    by_solved = {each: next(actions(replace(used, is_solved=each))).text for each in (None, False, True)}
    assert by_solved[None] == "If the loss is good, nothing has to change"
    assert by_solved[False].startswith("Continue training")
    assert by_solved[True] == "Nothing has to change"


@pytest.mark.parametrize(("samples", "is_asked"), [(0, False), (1, True), (2, True), (3, False)])
def test_more_samples_are_asked_for_where_there_are_too_few_and_not_where_they_were_not_counted(
    samples, is_asked
):
    one = found(Verdict.CANNOT_SAY, layer("yes", 0.5, "≥ 99"), samples=samples)
    assert ("Pass 16 or more samples" in [each.text for each in actions(one)]) == is_asked


def test_dead_units_come_before_the_lag_that_they_would_not_reach():
    dead = layer("no", 0.0, "0", "simple_rnn", why=(Evidence("dead", 1.0, "all units are 0"),))
    texts = [each.text for each in actions(found(Verdict.NO_EVIDENCE, dead, asked=None))]
    assert "initialise the layer anew" in texts[0]
    assert len(texts) == len(set(texts)) == 2


@pytest.mark.parametrize("reason", ["coupled", "no_losses", "no_time_axis"])
def test_use_that_was_not_measured_has_a_next_action_unless_the_task_is_solved(reason):
    why = phrase(reason, reason="it has no axis", steps=8, layer="rnn")
    one = replace(layer("yes", 0.5, "≥ 99"), use=Answer("not measured", reason=why))
    texts = [each.text for each in actions(found(Verdict.CANNOT_SAY, one, is_solved=False))]
    assert any(text.startswith("To measure use") for text in texts)
    solved = [each.text for each in actions(found(Verdict.CANNOT_SAY, one, is_solved=True))]
    assert solved == ["Nothing has to change"]


@pytest.mark.parametrize(
    ("solved", "start"), [(None, "If the loss is too high"), (False, "Continue training")]
)
def test_a_lag_that_is_not_used_asks_for_training_only_if_the_loss_is_too_high(solved, start):
    (action,) = actions(found(Verdict.UNUSED, layer("yes", 0.5, "≥ 99"), is_solved=solved))
    assert action.text.startswith(start)
    assert not {"Continue", "continue"} & {
        word
        for each in actions(found(Verdict.UNUSED, layer("yes", 0.5, "≥ 99"), is_solved=True))
        for word in each.text.split()
    }


@pytest.mark.parametrize("values", [(np.nan, 0.3), (0.3, np.nan)])
def test_the_largest_use_is_that_of_a_layer_in_which_it_was_measured(values):
    layers = [
        LayerDiagnosis("gru", Answer("yes", 0.5), Answer("yes", 0.5), Answer("unclear", value, n=20))
        for value in values
    ]
    assert found(Verdict.USES, *layers).largest_use.value == 0.3
