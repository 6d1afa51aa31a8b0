"""Findings by name, for scripts, and the exit code that follows.

The JSON of a verdict contains them; the command line and the assertions act on them.
"""

from collections.abc import Collection, Iterable

from throughtime._errors import ArgumentError, did_you_mean

from .results import NO, NOT_MEASURED, UNCLEAR, YES, Results, Verdict

NAMES = ("vanishing", "unstable", "nonfinite", "misread")
FINE, FOUND, UNDECIDED = 0, 1, 2


def findings(found: Results) -> dict[str, str]:
    """Answer "yes", "no" or "unclear" for each finding.

    "vanishing": the gradient surely does not reach the requested lag in any measured layer. "unstable": the
    verdict is. "nonfinite": a number, possibly in the data, is NaN or infinite.
    "misread": the model reads a layer, or one direction of it, after a single step.

    >>> from throughtime import diagnose, testing
    >>> findings(diagnose(testing.decaying(rate=0.5, samples=16), dependency_length=20))
    {'vanishing': 'yes', 'unstable': 'no', 'nonfinite': 'no', 'misread': 'no'}
    """
    reached = best(layer.reach.answer for layer in found.layers.values())
    is_asked, no = found.dependency_length is not None, NO if found.layers else UNCLEAR
    answers = (
        {YES: NO, NO: YES}.get(reached, UNCLEAR) if is_asked else UNCLEAR,
        YES if found.verdict is Verdict.UNSTABLE else no,
        {"nonfinite": YES, "loss_scaling": UNCLEAR}.get(found.stopped, NO),
        YES if found.misread else no if found.samples else UNCLEAR,  # a summary has no samples
    )
    return dict(zip(NAMES, answers, strict=True))


def best(answers: Iterable[str]) -> str:
    """Combine the answers of layers; one "yes" is enough.

    >>> best(["no", "yes"]), best(["no", "unclear"]), best(["no", "not measured"]), best([])
    ('yes', 'unclear', 'no', 'unclear')
    """
    measured = {answer for answer in answers if answer != NOT_MEASURED}
    return YES if YES in measured else NO if measured == {NO} else UNCLEAR


def names_of(text: str) -> tuple[str, ...]:
    """Read names of findings, separated by commas.

    >>> names_of("vanishing, unstable")
    ('vanishing', 'unstable')
    """
    names = tuple(filter(None, (part.strip() for part in text.split(","))))
    for name in names:
        if name not in NAMES:
            raise ArgumentError(
                f"--fail-on {name}: expected one or more of {', '.join(NAMES)}.{did_you_mean(name, NAMES)}"
            )
    if not names:
        raise ArgumentError(f"--fail-on is empty: expected one or more of {', '.join(NAMES)}.")
    return names


def exit_code(found: Results, names: Collection[str]) -> int:
    """Return 1 if there is one of the findings, else 2 if one could not be decided, else 0."""
    answers = [findings(found)[name] for name in names]
    if YES in answers:
        return FOUND
    return UNDECIDED if UNCLEAR in answers else FINE
