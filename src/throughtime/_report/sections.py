"""`report`: one offline page of a capture or run: summary, certificates, measures and pictures."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import xarray as xr

from throughtime._arguments import takes, tree
from throughtime._arguments.rules import instance
from throughtime._capture.summary import summary
from throughtime._drawing.theme import Theme
from throughtime._errors import DiagnosticError, PictureError, SchemaError
from throughtime._report.numbers import certificates, measures, origin
from throughtime._report.pictures import of_layer, of_model
from throughtime._report.sampled import sampled
from throughtime._text.tables import Shown
from throughtime._tree import layer as one_layer
from throughtime._tree import recorded_steps
from throughtime.diagnosis import Diagnosis, TrainingDiagnosis, diagnose
from throughtime.plots.data import last_step
from throughtime.render.save import checked_path, write

READING = (
    "Time is the order of each layer's own input. Gradients are those of each sample's own loss. Drag to "
    "pan, choose the wheel or box tool to zoom: timesteps of a layer's pictures move together. Hover for the "
    "value behind a colour or line. Grey is below the numerical floor, white is exactly 0, hatched is masked."
)


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
    """Write all that a capture or a stored run shows into one html file that works offline.

    Model summary, certificate and measures of each layer, and every picture of `tt.plots` that applies, with
    zoom, hover and sliders for samples and training steps. The page asks for nothing from the network.

    Parameters
    ----------
    tree_or_run : capture, run with a dim `step`, or a layer of either
        Sliders step through at most 16 samples, of a run 6, and 6 training steps, chosen evenly; images that
        are larger still are shrunk by their largest magnitude. The page says both. A run may be larger than
        memory: but for its evolution only the steps shown are read.
    path : str or path
        Ends in .html; without an ending it is added. An existing file is replaced at once.
    diagnosis : Diagnosis, optional
        What `diagnose` found, with which the page opens. Without it the capture is diagnosed, which leaves
        use unmeasured: that needs the model. Of a run the verdict over training follows.
    training : run, optional
        Of the same model: evolution and the verdict over training are of it. By default of `tree_or_run`,
        where that is a run.
    title : str, optional
    theme : Theme, optional

    Returns
    -------
    Path of the file

    Raises
    ------
    SchemaError
        There is no layer in it.
    PictureError
        The file cannot be written.
    BatchError
        There is no batch in the data, or the model refuses it.
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
    from throughtime.render.report import Section, report_page  # noqa: PLC0415 - drawing libraries load late

    last = whole.map_over_datasets(last_step).load()
    sections = [Section(*each) for each in _verdicts(last, training, diagnosis)]
    sections += [
        Section(
            "The model",
            (READING, *sampled(whole)),
            (summary(last), *certificates(last), origin(whole)),
            tuple(of_model(last)),
        )
    ]
    for node in whole.leaves:
        if node.data_vars:
            pictures, left_out = of_layer(node, _same_layer(training, node))
            sections.append(
                Section(_name(node), (), measures(last[node.path].to_dataset()), tuple(pictures), left_out)
            )
    write(target, report_page(title or "What flows through time", sections, theme or Theme()).encode())
    return target


def _verdicts(
    last: xr.DataTree, training: xr.DataTree | None, diagnosis: Diagnosis | None
) -> Iterator[tuple[str, tuple[str, ...], tuple[Shown, ...]]]:
    """Give the verdict, and that over training of a run; nothing where no layer has one."""
    if diagnosis is not None:
        yield "The verdict", (), (diagnosis,)
        if training is not None and not isinstance(diagnosis, TrainingDiagnosis):
            found = diagnose(training, dependency_length=diagnosis.lag)
            yield "Over training", (), (found.history,)  # type: ignore[attr-defined]
        return
    try:
        found = diagnose(last if training is None else training)
    except DiagnosticError:
        return
    yield "The verdict" if training is None else "The verdict over training", (), (found,)


def _same_layer(training: xr.DataTree | None, node: xr.DataTree) -> xr.Dataset | None:
    if training is None or not any(leaf.path == node.path for leaf in training.leaves):
        return None
    return training[node.path].to_dataset()


def _tree(captured: Any) -> xr.DataTree:
    """Take a capture or run as a tree, unread if it is on disk; a layer alone is a tree of one."""
    if isinstance(captured, xr.DataTree):
        if not any(node.data_vars for node in captured.leaves):
            raise SchemaError("There is no layer in this tree. Make one with tt.capture(model, x, y).")
        if captured.is_root:
            return captured
        below = {node.path: node.to_dataset() for node in captured.leaves}
        return xr.DataTree.from_dict({"/": xr.Dataset(attrs=captured.root.attrs), **below})
    leaf = one_layer(captured)
    return xr.DataTree.from_dict({f"/{leaf.attrs.get('layer', 'layer')}": leaf})


def _name(node: xr.DataTree) -> str:
    kind = str(node.attrs.get("kind", ""))
    return f"{node.path} · {kind}" if kind else str(node.path)
