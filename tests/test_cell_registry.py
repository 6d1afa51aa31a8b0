"""Which class computes which cell: registered, made anew in a notebook, offered by an installed package."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import EntryPoint

import pytest

import throughtime as tt
from throughtime import _cell_registry as registry
from throughtime import _vocabulary


def cell(name: str = "decay", **names: tuple[str, ...]) -> tt.Cell:
    return tt.Cell(name=name, replay=lambda *step: ..., adjoint=lambda *step: ..., **names)


class DecayCell:
    def call(self, inputs, states): ...


OFFERED = cell("offered")


@pytest.fixture(autouse=True)
def _empty(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("_registered", "_offered"):
        monkeypatch.setattr(registry, name, {})
    registry._entry_points.cache_clear()
    yield
    registry._entry_points.cache_clear()


def offer(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    """An installed package that offers a cell for `DecayCell`."""
    name = f"{DecayCell.__module__}.{DecayCell.__qualname__}"
    entries = [EntryPoint(name=name, value=value, group=registry.GROUP)]
    monkeypatch.setattr(registry, "entry_points", lambda group: entries if group == registry.GROUP else [])


def test_a_registered_class_and_its_subclasses_are_found():
    decay = cell()
    assert tt.register_cell(decay, DecayCell) is DecayCell

    class Renamed(DecayCell):
        pass

    class Changed(DecayCell):
        def call(self, inputs, states): ...

    assert registry.cell_of_class(DecayCell) is decay
    assert registry.cell_of_class(Renamed) is decay
    assert registry.cell_of_class(Changed) is None
    assert registry.cell_of_kind("decay") is decay


def test_as_a_decorator_it_returns_the_class():
    @tt.register_cell(cell())
    class Decorated(DecayCell):
        pass

    assert issubclass(Decorated, DecayCell)
    assert registry.cell_of_class(Decorated).name == "decay"


def test_what_is_unregistered_is_unknown():
    tt.register_cell(cell(), DecayCell)
    tt.unregister_cell(DecayCell)
    assert registry.cell_of_class(DecayCell) is registry.cell_of_kind("decay") is None
    with pytest.raises(tt.CellError, match=r"is not registered\. Registered classes: none"):
        tt.unregister_cell(DecayCell)


def test_a_class_made_anew_takes_the_place_of_the_older_one():
    def define():
        @tt.register_cell(cell())
        class InNotebook(DecayCell):
            pass

        return InNotebook

    older, newer = define(), define()
    assert registry.cell_of_class(older) is None
    assert registry.cell_of_class(newer) is registry.cell_of_kind("decay")


def test_one_cell_may_belong_to_several_classes_but_a_name_to_one_cell():
    class Other:
        def call(self, inputs, states): ...

    decay = cell()
    tt.register_cell(decay, DecayCell)
    tt.register_cell(decay, Other)
    assert registry.cell_of_class(Other) is decay

    class Third:
        def call(self, inputs, states): ...

    with pytest.raises(tt.CellError, match=r"'decay' is taken by the cell of .*DecayCell|Other"):
        tt.register_cell(cell(), Third)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((DecayCell,), "takes a throughtime.Cell first"),
        ((cell(), DecayCell()), "Pass the class of the layer's cell, not one of its instances"),
        ((cell(), int), "a class with a method call"),
    ],
)
def test_what_is_no_cell_or_no_class_is_refused(arguments, told):
    with pytest.raises(tt.CellError, match=told):
        tt.register_cell(*arguments)


def test_an_installed_package_is_asked_when_its_class_is_met(monkeypatch):
    offer(monkeypatch, f"{__name__}:OFFERED")
    assert registry.cell_of_kind("offered") is None
    assert registry.cell_of_class(int) is None
    found = registry.cell_of_class(DecayCell)
    assert found is not None
    assert (found.name, registry.cell_of_kind("offered")) == ("offered", found)


def test_a_tree_read_elsewhere_finds_the_cell_that_a_package_offers(monkeypatch):
    offer(monkeypatch, f"{__name__}:OFFERED")
    assert registry.required_cell("offered").name == "offered"
    with pytest.raises(tt.CellError, match="Import the file that registers"):
        registry.required_cell("unheard_of")


def test_what_is_registered_comes_before_what_is_offered(monkeypatch):
    offer(monkeypatch, f"{__name__}:OFFERED")
    mine = tt.register_cell(cell("mine"), DecayCell)
    assert registry.cell_of_class(mine).name == "mine"


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("not_installed_anywhere:CELL", "ModuleNotFoundError"),
        (f"{__name__}:DecayCell", "it is a type, expected"),
    ],
)
def test_an_offer_that_does_not_load_warns_once_and_costs_nothing_else(monkeypatch, value, told):
    offer(monkeypatch, value)
    with pytest.warns(tt.ThroughTimeWarning, match=told):
        assert registry.cell_of_class(DecayCell) is None
    assert registry.cell_of_class(DecayCell) is None


def test_further_states_are_asked_for_by_their_names():
    tt.register_cell(cell("two", states=("hidden", "in")), DecayCell)
    known = registry.further_states()
    assert _vocabulary.quantities(["in", "initial_in_gradient"], further_states=known) == {
        "cell",
        "initial_cell_gradient",
    }
    with pytest.raises(tt.SchemaError, match="no quantity 'out'"):
        _vocabulary.quantities(["out"], further_states=known)
