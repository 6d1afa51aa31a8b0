"""The verdict as JSON: its schema, reading it back, and findings by name."""

from __future__ import annotations

import copy
import json
from dataclasses import replace

import numpy as np
import pytest
import xarray as xr
from jsonschema import Draft202012Validator, ValidationError
from typer.testing import CliRunner

import throughtime as tt
from throughtime import testing
from throughtime._cli import app
from throughtime._monitor.levels import reduce_tree
from throughtime._store import Run
from throughtime.diagnosis import Verdict
from throughtime.diagnosis.fail_on import NAMES

from .verdict_schema import SCHEMA, VALIDATOR, check


def run_of(path, trees, level=None):
    with Run(path) as writer:
        for step, tree in enumerate(trees):
            writer.append(tree if level is None else reduce_tree(tree, level), step)
    return path


@pytest.fixture
def verdict():
    return tt.diagnose(testing.decaying(0.9, samples=16), dependency_length=10).to_dict()


def test_the_schema_is_one():
    Draft202012Validator.check_schema(SCHEMA)
    assert set(SCHEMA["$defs"]["verdict"]["enum"]) == {each.value for each in Verdict}
    assert set(SCHEMA["properties"]["findings"]["properties"]) == set(NAMES)


@pytest.mark.parametrize(
    "broken",
    [
        {"verdict": "fine"},
        {"text": ""},
        {"lag": 0},
        {"samples": 1.5},
        {"loss": "0.5"},
        {"findings": {"vanishing": "maybe", "unstable": "no", "nonfinite": "no"}},
        {"surprise": 1},
        {"step": 3},
    ],
    ids=lambda broken: next(iter(broken)),
)
def test_the_schema_refuses_what_is_none(verdict, broken):
    with pytest.raises(ValidationError):
        VALIDATOR.validate({**verdict, **broken})


@pytest.mark.parametrize("part", ["reach", "share", "use", "horizon", "k90", "kind", "curve"])
def test_the_schema_misses_what_a_layer_lacks(verdict, part):
    broken = copy.deepcopy(verdict)
    del broken["layers"]["rnn"][part]
    with pytest.raises(ValidationError):
        VALIDATOR.validate(broken)


@pytest.mark.parametrize("level", [None, "timestep", "summary"])
def test_the_verdict_on_a_run_follows_the_schema(tmp_path, level):
    trees = [testing.decaying(rate, samples=4) for rate in (0.5, 0.9)]
    path = run_of(tmp_path / "run.zarr", [*trees, testing.bidirectional(samples=4)][:2], level)
    told = check(tt.diagnose(tt.open_run(path), dependency_length=10))
    assert [record["step"] for record in told["history"]["records"]] == [0, 1]


@pytest.mark.parametrize("step", [None, 0])
def test_the_command_prints_what_the_schema_describes(tmp_path, step):
    path = run_of(tmp_path / "run.zarr", [testing.bidirectional(samples=4)] * 2)
    options = [] if step is None else ["--step", str(step)]
    result = CliRunner().invoke(app, ["diagnose", str(path), "--json", *options])
    told = json.loads(result.output)
    VALIDATOR.validate(told)
    (tmp_path / "verdict.json").write_text(result.output, "utf-8")
    assert tt.read_verdict(tmp_path / "verdict.json").to_dict() == told


@pytest.mark.parametrize("is_solved", [None, True, False])
def test_a_stored_verdict_has_the_actions_of_the_first(is_solved):
    found = replace(tt.diagnose(testing.decaying(samples=4), dependency_length=20), is_solved=is_solved)
    VALIDATOR.validate(found.to_dict())
    again = tt.read_verdict(json.loads(json.dumps(found.to_dict())))
    assert again.is_solved is is_solved
    assert str(again.brief) == str(found.brief)


def test_a_stored_verdict_compares_with_a_new_one(verdict, tmp_path):
    (tmp_path / "before.json").write_text(json.dumps(verdict), "utf-8")
    after = tt.diagnose(testing.decaying(0.5, samples=16), dependency_length=10)
    changes = tt.compare(tt.read_verdict(tmp_path / "before.json"), after).to_dataframe()
    reach = changes.set_index("question").loc["reach"]
    assert float(reach["change"]) == pytest.approx((0.5 / 0.9) ** 10)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"schema": "throughtime.verdict.v2"}, "pip install -U throughtime"),
        ({"schema": "another.v1"}, "expected 'throughtime.verdict.v1'"),
        ({"schema": None}, "expected 'throughtime.verdict.v1'"),
        ({"verdict": "fine"}, "does not follow throughtime.verdict.v1"),
        ({"layers": 3}, "does not follow throughtime.verdict.v1"),
        ({"history": {}}, "does not follow throughtime.verdict.v1"),
        *(({key: None}, "does not follow") for key in ("verdict", "layers", "remedies", "why", "history")),
        ({"notes": "abc"}, "does not follow"),
        ({"samples": "3"}, "does not follow"),
        ({"text": 3}, "does not follow"),
    ],
)
def test_what_is_no_verdict_of_this_version_is_refused(verdict, changed, words):
    with pytest.raises(tt.DiagnosticError, match=words):
        tt.read_verdict({**verdict, **changed})


@pytest.mark.parametrize("text", ["{", "[1]"])
def test_a_file_that_holds_no_verdict_is_refused(tmp_path, text):
    (tmp_path / "file.json").write_text(text)
    with pytest.raises(tt.DiagnosticError, match=r"file\.json"):
        tt.read_verdict(tmp_path / "file.json")
    with pytest.raises(tt.DiagnosticError, match="cannot be read"):
        tt.read_verdict(tmp_path / "absent.json")


def nonfinite_data():
    tree = testing.decaying(0.9, samples=16)
    leaf = tree["rnn"].to_dataset()
    sizes = [leaf.sizes[dim] for dim in ("sample", "time", "feature")]
    leaf["input"] = (("sample", "time", "feature"), np.full(sizes, np.nan))
    return xr.DataTree.from_dict({"/rnn": leaf})


FINDINGS = [  # in the order of NAMES
    (lambda: testing.decaying(0.9, samples=16), ("no", "no", "no", "no")),
    (lambda: testing.decaying(0.5, samples=16), ("yes", "no", "no", "no")),
    (lambda: testing.nonfinite("cell", sample=0, time=5, unit=0), ("unclear", "yes", "yes", "unclear")),
    (nonfinite_data, ("unclear", "unclear", "yes", "unclear")),
]


@pytest.mark.parametrize(("make", "expected"), FINDINGS)
def test_findings_of_captures_with_known_answers(make, expected):
    told = check(tt.diagnose(make(), dependency_length=20))
    assert told["findings"] == dict(zip(NAMES, expected, strict=True))


def test_without_a_lag_vanishing_is_not_decided():
    found = tt.diagnose(testing.decaying(0.5, samples=16))
    assert found.to_dict()["findings"]["vanishing"] == "unclear"


CODES = [
    (0.9, "vanishing,unstable,nonfinite", 0),
    (0.5, "vanishing", 1),
    (0.5, "unstable, nonfinite", 0),
    (None, "nonfinite", 1),
    (None, "vanishing", 2),
    (None, "vanishing,unstable", 1),
    (0.5, "vanshing", 2),
    (0.5, ",", 2),
]


@pytest.mark.parametrize(("rate", "names", "code"), CODES)
def test_the_exit_code_names_what_was_found(tmp_path, rate, names, code):
    broken = testing.nonfinite("cell", sample=0, time=5, unit=0)
    tree = broken if rate is None else testing.decaying(rate, samples=16)
    path = run_of(tmp_path / "run.zarr", [tree])
    command = ["diagnose", str(path), "--dependency-length", "20", "--fail-on", names]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == code, result.output


def test_a_finding_that_cannot_be_looked_for_names_the_remedy(tmp_path):
    path = run_of(tmp_path / "run.zarr", [testing.decaying(0.5, samples=16)])
    result = CliRunner().invoke(app, ["diagnose", str(path), "--fail-on", "vanishing"])
    assert result.exit_code == 2
    assert "needs --dependency-length" in result.output
    result = CliRunner().invoke(app, ["diagnose", str(path), "--fail-on", "vanshing"])
    assert "Did you mean vanishing?" in " ".join(result.output.split())
    result = CliRunner().invoke(app, ["diagnose", str(tmp_path / "none.zarr"), "--fail-on", "unstable"])
    assert result.exit_code == 2
