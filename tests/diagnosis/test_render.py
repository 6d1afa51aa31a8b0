"""What a diagnosis and a comparison give besides text: plain data, a table, HTML, a terminal."""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

import throughtime as tt
from throughtime import testing
from throughtime._common.text.tables import Part, Shown, Table
from throughtime.diagnosis import Diagnosis
from throughtime.diagnostics import lags


def named(tree, name):
    return xr.DataTree.from_dict({f"/{name}": tree["rnn"].to_dataset()})


@pytest.fixture
def found() -> Diagnosis:
    return tt.diagnose(named(testing.decaying(0.9, samples=16), "a<b"), dependency_length=10)


def test_a_dict_is_plain_and_complete(found):
    told = found.to_dict()
    again = json.loads(json.dumps(told, allow_nan=False))
    assert again == told
    assert told["verdict"] == "cannot_say"
    reach = told["layers"]["a<b"]["reach"]
    assert reach["value"] == pytest.approx(0.9**10)
    assert reach["answer"] == "yes"
    assert told["layers"]["a<b"]["curve"]["lag"] == [1, 2, 4, 8, 10, 16]
    assert told["layers"]["a<b"]["use"]["value"] is None


def test_a_table_has_a_row_a_question(found):
    table = found.to_dataframe()
    assert table["question"].tolist() == ["reach", "share", "use"]
    assert table.loc[0, ["answer", "n", "threshold"]].tolist() == ["yes", 16, 0.01]


def test_html_is_escaped_and_says_the_same(found):
    page = found._repr_html_()
    assert "a&lt;b" in page
    assert "a<b" not in page
    assert page.count("<table>") == page.count("</table>") == 1


@dataclass
class Alone(Shown):
    part: Part

    def __parts__(self):
        return [self.part]


@pytest.mark.parametrize("width", [110, 80, 40])
def test_a_narrow_terminal_wraps_tables_and_cuts_nothing(width):
    found = tt.diagnose(testing.bidirectional(samples=16), dependency_length=16)
    table = next(part for part in found.__parts__() if isinstance(part, Table))
    console = Console(width=width)
    with console.capture() as captured:
        console.print(Alone(table))
    shown, cells = captured.get(), "".join([*table.headings, *itertools.chain(*table.rows)])
    assert max(map(len, shown.splitlines())) <= width
    assert sorted("".join(shown.split())) == sorted("".join(cells.split()))


def test_a_terminal_shows_names_in_brackets():
    found = tt.diagnose(testing.bidirectional(samples=16))
    console = Console(width=160, record=True)
    with console.capture() as captured:
        console.print(found)
    assert "rnn[backward]" in captured.get()
    assert repr(found) == str(found)


def test_text_is_plain_in_a_notebook_and_under_forced_colours(found, monkeypatch, capfd):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    shown = []
    monkeypatch.setattr("rich.jupyter.display", lambda *arguments: shown.append(arguments))
    for each in (found, tt.compare(found, found), tt.summary(testing.decaying())):
        assert "\x1b" not in str(each)
        assert str(each).strip()
    assert shown == []
    assert capfd.readouterr().out == ""


def test_control_characters_and_markup_of_terminals_are_text():
    tree = named(testing.decaying(0.9, samples=16), "[red]a[/red]\x1b[31m\u202eb")
    for each in (tt.summary(tree), tt.diagnose(tree)):
        assert "[red]a[/red]\\x1b[31m\\u202eb" in str(each)
        assert "\x1b" not in each._repr_html_()


def test_a_comparison_in_a_notebook_names_its_columns(found):
    page = tt.compare(found, found)._repr_html_()
    head = page[page.index("<thead>") : page.index("</thead>")]
    assert [f">{name}<" in head for name in ("layer", "question", "a", "b", "change")] == [True] * 5


def test_layers_are_compared_by_path_or_by_order():
    slow, fast = (testing.decaying(rate, samples=16) for rate in (0.9, 0.5))
    same = tt.compare(tt.diagnose(slow), tt.diagnose(fast)).to_dataframe()
    assert same["layer"].unique().tolist() == ["rnn"]
    other = tt.compare(tt.diagnose(slow), tt.diagnose(named(fast, "gru")))
    assert other.to_dataframe()["layer"].unique().tolist() == ["rnn → gru"]
    assert other.to_dataframe().loc[0, "change"] == pytest.approx((0.5 / 0.9) ** 16)
    assert "rnn → gru" in str(other)
    assert "rnn → gru" in other._repr_html_()


def test_what_cannot_be_compared_is_refused():
    one = tt.diagnose(testing.decaying(samples=16), dependency_length=4)
    with pytest.raises(tt.DiagnosticError, match="same dependency_length"):
        tt.compare(one, tt.diagnose(testing.decaying(samples=16), dependency_length=5))
    two = tt.diagnose(testing.bidirectional(samples=16), dependency_length=4)
    with pytest.raises(tt.DiagnosticError, match="No layer of a"):
        tt.compare(one, two)
    with pytest.raises(tt.DiagnosticError, match="two diagnoses, got a str"):
        tt.compare(one, "another")


def test_what_is_no_capture_of_recurrent_layers_is_refused():
    dense = xr.DataTree.from_dict(
        {"/dense": xr.Dataset({"output": (("sample", "output_unit"), np.ones((2, 2)))})}
    )
    with pytest.raises(tt.DiagnosticError, match="no recurrent layer to diagnose"):
        tt.diagnose(dense)
    with pytest.raises(tt.DiagnosticError, match=r"step=3 selects .* tt\.open_run"):
        tt.diagnose(testing.decaying(samples=2), step=3)


@settings(max_examples=12, deadline=None)
@given(
    st.lists(st.integers(1, 12), min_size=2, max_size=6),
    st.sampled_from(["after", "before"]),
    st.floats(0.3, 1.2),
    st.integers(1, 11),
)
def test_padding_is_no_time_wherever_it_lies(lengths, padding, rate, lag):
    tree = testing.with_masks(lengths=lengths, rate=rate, steps=12, padding=padding)
    found = tt.diagnose(tree, dependency_length=lag)
    long_enough = [length for length in lengths if length > lag]
    if not long_enough:
        assert (
            "Only longer sequences can show" if max(lengths) > 1 else "reads sequences of one step"
        ) in found.text
        return
    reach = found.layers["rnn"].reach
    assert reach.n == len(long_enough)
    assert reach.value == pytest.approx(rate**lag)


@settings(max_examples=6, deadline=None)
@given(st.floats(1e-30, 1e30), st.integers(1, 40))
def test_the_size_of_the_loss_does_not_count(scale, lag):
    tree = testing.decaying(0.8, samples=4)
    leaf = tree["rnn"].to_dataset()
    names = [name for name in leaf.data_vars if "gradient" in str(name) or name == "step_contribution"]
    scaled = leaf.assign({name: leaf[name] * scale for name in names})
    one, other = (tt.diagnose(each, dependency_length=lag) for each in (leaf, scaled))
    assert one.verdict == other.verdict
    assert one.layers["layer"].reach.value == pytest.approx(other.layers["layer"].reach.value)
    assert one.layers["layer"].share.value == pytest.approx(other.layers["layer"].share.value)


@pytest.mark.parametrize(("make", "directions"), [(testing.decaying, 1), (testing.bidirectional, 2)])
def test_a_diagnosis_orders_each_direction_by_lag_at_most_twice(make, directions, monkeypatch):
    ordered, calls = lags.by_lag, []
    monkeypatch.setattr(lags, "by_lag", lambda *given: calls.append(1) or ordered(*given))
    found = tt.diagnose(make(samples=16), dependency_length=10)
    assert all(layer.reach.n == 16 for layer in found.layers.values())
    assert directions <= len(calls) <= 2 * directions
