"""`report`: one offline page of a capture or run: the answer, the next actions, then each layer."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from throughtime._capture.summary import summary
from throughtime._common.text.tables import Paragraph
from throughtime._errors import DiagnosticError, PictureError, SchemaError
from throughtime._inputs import takes, tree
from throughtime._inputs.rules import instance
from throughtime._pages.report.answer import measured, reach_picture, sparks
from throughtime._pages.report.numbers import certificates, measures, origin
from throughtime._pages.report.pictures import of_layer, of_model, sampled
from throughtime._tree import layer as one_layer
from throughtime._tree import recorded_steps
from throughtime.diagnosis import Diagnosis, TrainingDiagnosis, diagnose
from throughtime.diagnosis.actions import actions
from throughtime.diagnosis.brief import OPEN as OPEN_TONE
from throughtime.diagnosis.brief import below_headline, facts, headline, tone
from throughtime.diagnosis.diagnosis import REMEDIES, parts
from throughtime.diagnosis.results import NOT_MEASURED
from throughtime.diagnosis.training import History
from throughtime.diagnosis.words import size
from throughtime.picture._drawing.theme import Theme
from throughtime.picture._render.report import Opening, Section, report_page
from throughtime.picture._render.save import checked_path, write
from throughtime.plots.data import last_step


@takes(
    PictureError,
    theme=instance("Theme", of="tt.Theme.for_paper()"),
    diagnosis=instance("Diagnosis", of="tt.diagnose(tree)"),
    training=tree,
)
def report(
    tree_or_run: xr.DataTree | xr.Dataset,
    path: str | os.PathLike[str],
    *,
    diagnosis: Diagnosis | None = None,
    training: xr.DataTree | None = None,
    title: str | None = None,
    theme: Theme | None = None,
) -> Path:
    """Write everything that a capture or a stored run shows into one html file that works offline.

    The page begins with the verdict, reach, use and horizon, R(k) of all layers, the next actions, and their
    development over training. Below, each layer has a fold with its measures and every other applicable plot
    of `tt.plots`, with zoom, hover and sliders for samples and training steps. The page uses no network.

    Parameters
    ----------
    tree_or_run : capture, run with a dim `step`, or a layer of either
        Sliders step through at most 16 samples, for a run 6 samples and 6 training steps, chosen evenly.
        Larger images are shrunk by their largest magnitude. The page states both. A run may be larger than
        memory: except for its evolution, only the steps shown are read.
    path : str or path
        Ends in .html, which is the default. An existing file is replaced at once.
    diagnosis : Diagnosis, optional
        Result of `diagnose`, with which the page begins. By default the capture is diagnosed without use,
        which needs the model. For a run, the verdict over training follows.
    training : run, optional
        A run of the same model, for evolution and the verdict over training; by default `tree_or_run` if that
        is a run.
    title : str, optional
    theme : Theme, optional

    Returns
    -------
    Path of the file

    Raises
    ------
    SchemaError
        There is no layer.
    PictureError
        The file cannot be written.
    BatchError
        The data contain no batch, or the model refuses it.
    DiagnosticError
        An argument is not as described above.

    Examples
    --------
    >>> import tempfile
    >>> from throughtime import testing
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     report(testing.decaying(samples=3), f"{folder}/report").name
    'report.html'
    """
    target = checked_path(path, ("html",))
    whole = _tree(tree_or_run)
    training = (whole if recorded_steps(whole) else None) if training is None else _tree(training)
    last = whole.map_over_datasets(last_step).load()
    found, history = _verdicts(last, training, diagnosis)
    page = report_page(
        title or "Gradients and states through time",
        replace(
            _answer(last, found, history),
            notes=sampled(whole),
            origin=(origin(whole, training), *certificates(last)),
        ),
        list(_folds(whole, last, training, found)),
        theme or Theme(),
    )
    write(target, page.encode())
    return target


def _verdicts(
    last: xr.DataTree, training: xr.DataTree | None, diagnosis: Diagnosis | None
) -> tuple[Diagnosis | None, History | None]:
    """Return the verdict, if a layer has one, and its history for a run."""
    found = diagnosis
    if found is None:
        try:
            found = diagnose(last if training is None else training)
        except DiagnosticError:
            return None, None
    if not isinstance(found, TrainingDiagnosis) and training is not None:
        over = diagnose(training, dependency_length=found.lag)
        return found, over.history if isinstance(over, TrainingDiagnosis) else None
    return found, found.history if isinstance(found, TrainingDiagnosis) else None


def _answer(last: xr.DataTree, found: Diagnosis | None, history: History | None) -> Opening:
    """Return the top of the page."""
    if found is None:
        return Opening("No recurrent layer, and so no verdict", OPEN_TONE)
    curves = measured(last)
    horizons = {path: each.horizon for path, each in found.layers.items() if each.horizon != NOT_MEASURED}
    return Opening(
        headline(found),
        tone(found),
        (below_headline(found),),
        facts(found),
        reach_picture(curves, found.lag, horizons) if curves else None,
        tuple(actions(found)),
        sparks(history) if history is not None else (),
        history.trend if history is not None else (),
        history and _records(history),
    )


def _records(history: Any) -> Any:
    """Tabulate the records, without the sentences that stand above."""
    trend, table = history.__parts__()
    return replace(_measured(table), caption=trend.heading)


def _measured(part: Any) -> Any:
    """Leave the column of shares out if it has none."""
    at = next((at for at, name in enumerate(getattr(part, "headings", ())) if name.startswith("share")), None)
    if at is None or not {row[at] for row in part.rows if at < len(row)} <= {"not defined", NOT_MEASURED}:
        return part
    rows = tuple(row[:at] + row[at + 1 :] for row in part.rows)
    return replace(part, rows=rows, headings=part.headings[:at] + part.headings[at + 1 :])


def _folds(
    whole: xr.DataTree, last: xr.DataTree, training: xr.DataTree | None, found: Diagnosis | None
) -> Iterator[Section]:
    verdict = [
        _measured(part)
        for part in (parts(found) if found else ())
        if not isinstance(part, Paragraph) and getattr(part, "heading", "") != REMEDIES
    ]
    yield Section(
        "All layers",
        "answers with their intervals, evidence, weights",
        (*verdict, summary(last)),
        tuple(of_model(last)),
    )
    for node in whole.leaves:
        if node.data_vars:
            figures, left_out = of_layer(node, _same_layer(training, node))
            lead = _lead(str(node.path).strip("/"), str(node.attrs.get("kind", "")), found)
            yield Section(*lead, measures(last[node.path].to_dataset()), tuple(figures), left_out)


def _lead(path: str, kind: str, found: Diagnosis | None) -> tuple[str, str]:
    """Name a layer and its findings."""
    words = [kind] if kind else []
    layers = {} if found is None else found.layers
    for name, each in layers.items():
        if name.partition("[")[0] == path and not np.isnan(each.reach.value):
            way = name.removeprefix(path)
            words.append(f"{way} reach {size(each.reach.value)}, horizon {each.horizon} steps".strip())
    return path, " · ".join(words)


def _same_layer(training: xr.DataTree | None, node: xr.DataTree) -> xr.Dataset | None:
    if training is None or not any(leaf.path == node.path for leaf in training.leaves):
        return None
    return training[node.path].to_dataset()


def _tree(captured: Any) -> xr.DataTree:
    """Return a capture or run as a tree, unread if it is on disk; a single layer becomes a tree."""
    if isinstance(captured, xr.DataTree):
        if not any(node.data_vars for node in captured.leaves):
            raise SchemaError("There is no layer in this tree. Make one with tt.capture(model, x, y).")
        if captured.is_root:
            return captured
        below = {node.path: node.to_dataset() for node in captured.leaves}
        return xr.DataTree.from_dict({"/": xr.Dataset(attrs=captured.root.attrs), **below})
    leaf = one_layer(captured)
    return xr.DataTree.from_dict({f"/{leaf.attrs.get('layer', 'layer')}": leaf})
