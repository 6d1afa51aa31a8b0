"""Needs are added up and held against what is free; what is free is read from the operating system."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import weakref

import psutil
import pytest

import throughtime as tt
from throughtime._capture.label import Captured
from throughtime._common.memory import free
from throughtime._common.memory.budget import Amount, Budget, ExceededError, Need, allowed, too_large

LAYER = Need(
    kept={"hidden": Amount(100.0), "weights": Amount(once=50.0)},
    passing=Amount(300.0, 10.0),
    left=Amount(20.0, 5.0),
    solving=Amount(40.0, 100.0),
)


def test_layers_pass_together_and_are_solved_one_after_the_other():
    smaller = Need({"hidden": Amount(10.0)}, Amount(30.0), Amount(2.0), Amount(4.0, 400.0))
    both = LAYER + smaller
    assert both.kept["hidden"] == Amount(110.0)
    assert both.passing == Amount(330.0, 10.0)
    assert both.left == Amount(22.0, 5.0)
    assert both.solving == Amount(40.0, 400.0)


def test_the_need_is_that_of_the_largest_phase():
    passing, solving = 10 * 300 + 10, 10 * (20 + 100 + 40) + 5 + 50 + 100
    assert Budget(None, 10, 10).needed(LAYER) == passing > solving
    assert Budget(None, 10, 2).needed(LAYER) == (10 * 100 + 50) + max(610, 2 * 160 + 155)


def test_as_many_samples_fit_as_do():
    budget = Budget(2500, 10, 10)
    assert budget.alone(LAYER) == 8
    part = budget.fitting(LAYER)
    assert Budget(None, 10, part).needed(LAYER) <= 2500 < Budget(None, 10, part + 1).needed(LAYER)
    assert Budget(1000, 10, 10).fitting(LAYER) == 0


def test_what_does_not_fit_is_stopped():
    Budget(3010, 10, 10).check(LAYER)
    Budget(None, 10, 10).check(LAYER)
    with pytest.raises(ExceededError):
        Budget(3009, 10, 10).check(LAYER)


def test_the_error_names_figures_and_remedies():
    error = too_large(LAYER, Budget(2500, 10, 10), "it is too warm")
    assert isinstance(error, tt.TooLargeError)
    assert str(error) == (
        "The capture needs about 3.0 kB for 10 samples; 2.5 kB are free. Pass at most 8 samples at once, or "
        "request fewer arrays with quantities=; the largest are hidden 1.0 kB, weights 50 bytes. The batch "
        "was not split, because it is too warm."
    )


@pytest.mark.parametrize("budget", ["much", "-2 GB", -1, float("nan"), float("inf"), True, [5]])
def test_a_budget_is_bytes_or_a_text_with_a_unit(budget):
    with pytest.raises(tt.TooLargeError, match="number of bytes, such as 2e9"):
        allowed(budget)


# What is free


def test_free_memory_is_known(monkeypatch):
    monkeypatch.setattr(free, "_groups", lambda membership: [])
    free._available.cache_clear()
    assert 2**20 < free.available() <= psutil.virtual_memory().total
    free.release()


def test_a_control_group_that_leaves_less_counts(monkeypatch, tmp_path):
    (tmp_path / "memory.max").write_text("3000")
    (tmp_path / "memory.current").write_text("1000")
    monkeypatch.setattr(free, "_groups", lambda membership: [tmp_path, tmp_path / "absent"])
    free._available.cache_clear()
    assert free.available() == 2000
    free._available.cache_clear()


def test_a_control_group_leaves_its_limit_less_what_cannot_be_dropped(tmp_path):
    files = {
        "memory.max": "1000\n",
        "memory.current": "700\n",
        "memory.stat": "anon 500\ninactive_file 150\n",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert free._of_group(tmp_path) == 450
    (tmp_path / "memory.max").write_text("max\n")
    assert free._of_group(tmp_path) is None


def test_an_older_control_group_is_read_as_well(tmp_path):
    (tmp_path / "memory.limit_in_bytes").write_text("1000\n")
    (tmp_path / "memory.usage_in_bytes").write_text("1200\n")
    assert free._of_group(tmp_path) == 0


def test_every_group_above_counts(monkeypatch, tmp_path):
    inner = tmp_path / "job" / "step"
    inner.mkdir(parents=True)
    (tmp_path / "job" / "memory.max").write_text("500")
    (tmp_path / "job" / "memory.current").write_text("100")
    (tmp_path / "membership").write_text("0::/job/step\n")
    monkeypatch.setattr(free, "_GROUPS", tmp_path)
    found = [free._of_group(folder) for folder in free._groups(tmp_path / "membership")]
    assert found == [None, 400, None]


def test_trees_that_nobody_holds_are_freed_before_the_collector_would(monkeypatch):
    def new_tree():
        return Captured.of(tt.testing.perfect_memory(steps=4)).tree()

    monkeypatch.setattr(free, "trees", free.Trees())
    thresholds = gc.get_threshold()
    gc.set_threshold(0)  # the collector does not start by itself
    try:
        dropped = weakref.ref(new_tree())
        held = new_tree()
        assert dropped() is not None  # a tree refers to itself
        free.trees.add(held, free._MOST_BYTES + 1)
        assert dropped() is None
    finally:
        gc.set_threshold(*thresholds)
    assert held.leaves


def test_trees_that_have_been_freed_start_no_search(monkeypatch):
    class Freed:
        """Goes with its last reference."""

    searches, trees = [], free.Trees()
    monkeypatch.setattr(free.gc, "collect", lambda: searches.append(1))
    for _ in range(3):
        trees.add(Freed(), free._MOST_BYTES - 1)
    assert not searches
    held = [Freed(), Freed()]
    for each in held:
        trees.add(each, free._MOST_BYTES - 1)
    assert len(searches) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc keeps freed memory")
def test_memory_that_captures_free_is_used_again():
    program = """
import resource, numpy as np
from throughtime._common.memory import free
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
before = faults()
free.keep()
assert faults() - before < 1000, "kept memory was written"
for _ in range(3):
    before = faults()
    arrays = [np.ones(2**19) for _ in range(6)]
    del arrays
print(faults() - before)
"""
    usual = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}  # of dask
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env=usual
    )
    assert int(done.stdout) < 600  # 3,000 if it is not used again
