"""Finds the layers a caller means among those an adapter has named: by index, name, path, object, predicate.

Touches no framework: an adapter lists its layers as entries, and decides which objects are layers at all.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, NoReturn, TypeVar

from throughtime._errors import AmbiguousLayerError, LayerNotFoundError, did_you_mean
from throughtime._inputs.rules import describe


@dataclass(frozen=True)
class Entry:
    """A layer that a caller can mean.

    `path` is the path of its leaf in the tree, `encoder/lstm`, and `name` its name in the framework. A
    container computes by its own layers alone; in a recurrent layer something flows through time; a part
    belongs to a layer that has a separate entry. It `stands_for` an object that only wraps the layer.
    """

    path: str
    name: str
    layer: object
    class_name: str
    is_container: bool = False
    is_recurrent: bool = False
    is_part: bool = False
    stands_for: object = None


Kind = TypeVar("Kind", bound=Entry)
_NO_PART = "This {} is not part of the model, or lies inside a layer that is captured as a whole"


@dataclass(frozen=True)
class Selection(Generic[Kind]):
    """All layers of one model.

    `entries` has containers before their content, and a layer before its parts. `indexed` are the layers that
    an int counts, `layer_class` is a class of objects that are layers and not predicates, and `hint` a
    sentence about what the model may hold beside its layers. If layers `may_be_found` recurrent when the
    model runs, that none is known is no error yet.
    """

    entries: Sequence[Kind]
    indexed: Sequence[object]
    layer_class: type
    hint: str = ""
    may_be_found: bool = False

    def select(self, wanted: object) -> list[Kind]:
        """Find the layers a caller means.

        `wanted` is "recurrent", "all", an int, name, path, layer, a list of those, or a predicate on a layer.
        """
        whole = [entry for entry in self.entries if not entry.is_part]
        if isinstance(wanted, str) and wanted == "recurrent":
            known = [entry for entry in whole if entry.is_recurrent]
            return known if known or self.may_be_found else self.refuse()
        if isinstance(wanted, str) and wanted == "all":
            return [entry for entry in whole if not entry.is_container]
        if isinstance(wanted, (list, tuple, set)):
            found = {entry.path: entry for item in wanted for entry in self.select(item)}
            return self._some(list(found.values()), "No layer is selected")
        if callable(wanted) and not isinstance(wanted, self.layer_class):
            fitting = [entry for entry in whole if self._holds(wanted, entry)]
            return self._some(fitting, "The predicate is true for no layer")
        return self._matching(wanted)

    def expect_one(self, found: Sequence[Kind]) -> None:
        """Raise AmbiguousLayerError for several layers where one is meant."""
        if len(found) > 1:
            paths = ", ".join(entry.path for entry in found)
            raise AmbiguousLayerError(
                f"The model has {len(found)} recurrent layers, {paths}: choose one with layer_name= or "
                f"layer_idx=.\n{self.listing()}"
            )

    def refuse(self, hint: str = "") -> NoReturn:
        """Raise LayerNotFoundError: the model has no recurrent layer."""
        self._raise_not_found("The model has no recurrent layer", hint)

    def _holds(self, predicate: Callable[..., object], entry: Kind) -> bool:
        try:
            return bool(predicate(entry.layer))
        except Exception as error:  # whatever a function of the user's raises
            raise LayerNotFoundError(
                f"The predicate raised {type(error).__name__} for {entry.path} ({entry.class_name}): "
                f"{error}. It is called with every layer and must return True or False."
            ) from error

    def _matching(self, wanted: object) -> list[Kind]:
        """Find a layer by index, object, path or name: exact first, then a unique part of the name.

        An object has all paths on which the model uses it.
        """
        if isinstance(wanted, self.layer_class):
            return self._some(self._of_object(wanted), _NO_PART.format(type(wanted).__name__))
        if isinstance(wanted, int) and not isinstance(wanted, bool):
            return self._by_index(wanted)
        if isinstance(wanted, str):
            return [self._by_name(wanted)]
        raise LayerNotFoundError(
            f"Select a layer by its index, name or path, or pass the layer itself; got {describe(wanted)}."
        )

    def _of_object(self, wanted: object) -> list[Kind]:
        whole = (entry for entry in self.entries if not entry.is_part)
        return [entry for entry in whole if wanted is entry.layer or wanted is entry.stands_for]

    def _by_index(self, index: int) -> list[Kind]:
        if not -len(self.indexed) <= index < len(self.indexed):
            self._raise_not_found(f"There is no layer {index}")
        layer = self.indexed[index]
        otherwise = f"Layer {index}, a {type(layer).__name__}, is an input and computes nothing"
        return self._some(self._of_object(layer), otherwise)

    def _by_name(self, wanted: str) -> Kind:  # noqa: RET503 - _raise_not_found never returns
        path = wanted.strip("/").replace(".", "/")
        tests: tuple[Callable[[Kind], bool], ...] = (
            lambda entry: wanted == entry.name,
            lambda entry: path == entry.path,
            lambda entry: not entry.is_part and wanted == entry.path.rpartition("/")[2],
            # A layer stands for its parts here: `lstm` is no part of a name of `lstm/0`.
            lambda entry: not entry.is_part and (wanted in entry.name or path in entry.path),
        )
        for test in tests:
            matches = [entry for entry in self.entries if test(entry)]
            if len(matches) == 1:
                return matches[0]
            if matches:
                names = ", ".join(repr(entry.path) for entry in matches)
                raise AmbiguousLayerError(
                    f"{wanted!r} matches {len(matches)} layers: {names}. Pass one of these paths.\n"
                    f"{self.listing()}"
                )
        known = [name for entry in self.entries for name in (entry.path, entry.name)]
        self._raise_not_found(f"There is no layer {wanted!r}", did_you_mean(wanted, known))

    def listing(self) -> str:
        """List the layers, indexed as an int counts them."""
        indices = {id(layer): index for index, layer in enumerate(self.indexed)}
        lines = []
        for entry in self.entries:
            index = (
                "" if entry.is_part else indices.get(id(entry.stands_for), indices.get(id(entry.layer), ""))
            )
            recurrent = "  recurrent" if entry.is_recurrent else ""
            lines.append(f"  {index:>3}  {entry.path}  ({entry.class_name}){recurrent}")
        return "\n".join(["Layers of this model (index, path, class):", *lines])

    def _some(self, matches: list[Kind], otherwise: str) -> list[Kind]:
        if not matches:
            self._raise_not_found(otherwise)
        return matches

    def _raise_not_found(self, reason: str, suggestion: str = "") -> NoReturn:
        raise LayerNotFoundError(f"{reason}.{suggestion}{self.hint}\n{self.listing()}")


def is_open(wanted: object) -> bool:
    """Whether a choice of layers stands for more than those that it names.

    >>> is_open("recurrent"), is_open(["encoder", "all"]), is_open("encoder")
    (True, True, False)
    """
    if isinstance(wanted, (list, tuple, set)):
        return any(map(is_open, wanted))
    return isinstance(wanted, str) and wanted in ("recurrent", "all")
