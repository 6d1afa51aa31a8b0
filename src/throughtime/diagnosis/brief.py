"""A diagnosis in a few lines: a headline, three measures with their meaning, and the next actions.

The report begins with these, the command `diagnose` prints them, and a notebook shows them.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from throughtime._common.text.tables import Items, Paragraph, Part, Shown, Table

from .actions import Action, actions
from .results import NO, NOT_MEASURED, UNCLEAR, YES, LayerDiagnosis, Results, Verdict, steps_of
from .words import FACTS, join_words, number, size

_MOST_NAMED = 3  # layers that a measure names
GOOD, BAD, OPEN, UNSTABLE = "good", "bad", "open", "unstable"


@dataclass(frozen=True)
class Fact:
    """One measure of a model: its value in the weakest layer, the other layers, and its meaning."""

    name: str
    value: str
    detail: str
    meaning: str


def headline(found: Results) -> str:
    """Describe the result in one line.

    >>> from throughtime import diagnose, testing
    >>> headline(diagnose(testing.decaying(rate=0.5, samples=16), dependency_length=20))
    'The gradient vanishes before lag 20'
    """
    answer = _answer(found)
    if found.is_solved and found.verdict not in (Verdict.USES, Verdict.UNSTABLE):
        answer = f"The task is solved; {answer[:1].lower()}{answer[1:]}"
    return "; ".join((answer, *dict.fromkeys(each.evidence for each in found.misread)))


def below_headline(found: Results) -> str:
    """Return the verdict in words, without a first sentence that is the headline."""
    text = " ".join(found.sentences)
    return text.partition(". ")[2] or text if found.verdict is Verdict.USES else text


def _answer(found: Results) -> str:
    lag = found.lag
    if found.uses_newest_alone:
        return "The model uses its newest input alone"
    match found.verdict:
        case Verdict.UNSTABLE:
            exploding = [path for path, each in found.layers.items() if each.verdict is Verdict.UNSTABLE]
            places = f"the gradient explodes in {join_words(exploding)}" if exploding else ""
            return f"Unstable: {places or 'a number is not finite'}"
        case Verdict.USES:
            return f"The model uses {found.inputs}"
        case Verdict.WEAK_SIGNAL:
            return f"The model uses {found.inputs}; little gradient reaches them"
        case Verdict.UNUSED:
            return f"The gradient reaches lag {lag}; the model does not use inputs that old yet"
    return _undecided(found)


def _undecided(found: Results) -> str:
    lag, reach, used = found.lag, _reach(found), {each.use.answer for each in found.layers.values()}
    if UNCLEAR in used:
        return f"{reach}; use is undecided" if reach else f"Use and reach at lag {lag} are undecided"
    if used == {NO} and not reach:
        return f"The model does not use {found.inputs}; reach is undecided"
    return reach or "Not decided"


def _reach(found: Results) -> str:
    """Describe reach; empty if it was not measured or is unclear."""
    answers = {path: each.reach.answer for path, each in found.layers.items() if each.reach.n}
    reached = [path for path, answer in answers.items() if answer == YES]
    lost = [path for path, answer in answers.items() if answer == NO]
    if not answers or len(reached) + len(lost) < len(answers):
        return ""
    if not lost:
        return f"The gradient reaches lag {found.lag}"
    if reached:
        return f"The gradient reaches lag {found.lag} in {_names(reached)}, and not in {_names(lost)}"
    is_asked = found.dependency_length is not None
    return f"{'The gradient vanishes before' if is_asked else 'Little gradient reaches'} lag {found.lag}"


def _names(paths: list[str]) -> str:
    return join_words(paths) if len(paths) <= _MOST_NAMED else f"{len(paths)} layers"


def tone(found: Results) -> str:
    """Return "good", "bad", "unstable" or "open", by which the result is coloured."""
    if found.misread:
        return BAD
    if found.verdict in (Verdict.USES, Verdict.UNSTABLE) or found.is_solved:
        return UNSTABLE if found.verdict is Verdict.UNSTABLE else GOOD
    vanishes = found.verdict is not Verdict.WEAK_SIGNAL and any(
        each.reach.answer == NO for each in found.layers.values()
    )
    return BAD if vanishes and found.dependency_length is not None else OPEN


def facts(found: Results) -> tuple[Fact, ...]:
    """List reach, use and horizon, with the weakest layer first; empty if nothing was measured."""
    if not found.layers or found.lag is None:
        return ()
    reach = _format_layers(found, lambda each: (each.reach.value, size(each.reach.value)))
    horizon = _format_layers(found, lambda each: (steps_of(each.horizon), f"{each.horizon} steps"))
    lag, origin = found.lag, FACTS["lag_asked" if found.dependency_length else "lag_chosen"]
    return (
        Fact(f"Reach at lag {lag}", *reach, FACTS["reach"].format(lag=lag, origin=origin)),
        Fact(f"Use at lag {lag}", *_use(found), FACTS["use"].format(lag=lag)),
        Fact("Horizon", *horizon, FACTS["horizon"]),
    )


def _format_layers(found: Results, read: Callable[[LayerDiagnosis], tuple[float, str]]) -> tuple[str, str]:
    """Format the smallest value and, if there are several layers, all values."""
    values = {path: read(each) for path, each in found.layers.items()}
    known = {path: each for path, each in values.items() if not math.isnan(each[0])}
    if not known:
        return NOT_MEASURED, ""
    if len(values) == 1:
        return known[path := next(iter(known))][1], f"in {path}"
    ordered = sorted(known, key=lambda path: known[path][0])
    named = [f"{path} {known[path][1]}" for path in ordered[:_MOST_NAMED]]
    rest = len(ordered) - len(named)
    more = f", {rest} more up to {known[ordered[-1]][1]}" if rest else ""
    return known[ordered[0]][1], f"{', '.join(named)}{more}"


def _use(found: Results) -> tuple[str, str]:
    used = found.largest_use
    if not used.n or math.isnan(used.value):
        return used.answer, used.reason
    ends = " to ".join(_percent(end) for end in used.interval)
    if used.answer == NO and used.reason:
        why = used.reason.partition(":")[0]
        return "none", why[:1].lower() + why[1:]
    return f"{_percent(used.value)} %", f"95 % interval: {ends} %"


def _percent(share: float) -> str:
    """Format a share, without a sign if it rounds to 0.

    >>> _percent(-1e-5), _percent(0.358), _percent(0.004)
    ('0', '36', '0.4')
    """
    percent = 100 * share
    return number(round(percent) if abs(percent) >= 1 else round(percent, 1) + 0.0)


@dataclass(frozen=True)
class Brief(Shown):
    """A headline, the three measures and the next actions; prints in a few lines."""

    found: Results

    def __parts__(self) -> Iterator[Part]:
        yield Paragraph(f"{headline(self.found)}.", bold=True)
        measured = facts(self.found)
        if not measured or self.found.verdict is Verdict.UNSTABLE:
            yield Paragraph(" ".join(self.found.sentences))
        if measured:
            yield Table(tuple((each.name, each.value, each.detail) for each in measured))
        for each in self.actions:
            yield Items(f"To do: {each.text}.", tuple(each.code.splitlines()))

    @property
    def actions(self) -> tuple[Action, ...]:
        """The next actions, the first one first."""
        return tuple(actions(self.found))
