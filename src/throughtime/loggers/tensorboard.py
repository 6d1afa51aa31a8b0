"""Scalars, histograms and images for TensorBoard, grouped by layer and direction."""

import os
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from throughtime.loggers.library import library
from throughtime.loggers.record import Record


class TensorBoard:
    """Write event files that `tensorboard --logdir` shows. TensorFlow is not needed, only tensorboard.

    Parameters
    ----------
    folder : path-like
    histograms : bool
        Log histograms of weights, their gradients and gate activations, one for each gate.
    images : bool
        Log a plot of the gradient norm against time at each record. Drawing takes about 0.1 s for each layer
        and direction.

    Raises
    ------
    MissingDependencyError
        tensorboard is not installed.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from throughtime.loggers import Record
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     logger = TensorBoard(folder)
    ...     logger.write(Record(10, {"detail/lstm/loss": 0.5}))
    ...     logger.close()
    ...     len(list(Path(folder).glob("events.out.tfevents.*")))
    1
    """

    def __init__(
        self, folder: str | os.PathLike[str], *, histograms: bool = True, images: bool = False
    ) -> None:
        self._files = _part("summary.writer.event_file_writer")
        self._folder = os.fspath(folder)
        self._histograms, self._images = histograms, images
        self._writer: Any = None

    def write(self, record: Record) -> None:
        """Add one event with the whole record; the event is on disk when this returns."""
        if self._writer is None:
            self._writer = self._files.EventFileWriter(self._folder)
        summary = _part("compat.proto.summary_pb2").Summary(value=self._values(record))
        event = _part("compat.proto.event_pb2").Event(
            wall_time=time.time(), step=record.step, summary=summary
        )
        self._writer.add_event(event)
        self._writer.flush()

    def close(self) -> None:
        """Close the event file; training that continues starts another file in the same folder."""
        if self._writer is not None:
            self._writer.close()
        self._writer = None

    def _values(self, record: Record) -> Iterator[Any]:
        for key, number in record.numbers.items():
            yield _value("scalar", key, np.float32(number))
        for key, histogram in record.histograms.items() if self._histograms else ():
            edges = histogram.edges
            yield _value("histogram", key, np.stack([edges[:-1], edges[1:], histogram.counts], 1))
        for key, png in record.images.items() if self._images else ():
            # TensorBoard expects [width, height, PNG]; the first chunk of a PNG holds its size.
            size = [str(int.from_bytes(png[place : place + 4], "big")).encode() for place in (16, 20)]
            yield _value("image", key, np.array([*size, png], object))


def _value(plugin: str, key: str, array: Any) -> Any:
    """Label a tensor for one of TensorBoard's plugins."""
    metadata = _part(f"plugins.{plugin}.metadata").create_summary_metadata(None, None)
    tensor = _part("util.tensor_util").make_tensor_proto(array)
    value = _part("compat.proto.summary_pb2").Summary.Value
    return value(tag=key, metadata=metadata, tensor=tensor)


def _part(module: str) -> Any:
    package = "'throughtime[tensorboard]'"
    return library("loggers.TensorBoard", "tensorboard", package, f"tensorboard.{module}")
