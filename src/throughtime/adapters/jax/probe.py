"""Runs a JAX model on a batch and returns what was asked for; a program is compiled once a shape."""

from collections.abc import Hashable
from dataclasses import replace

import jax
import jax.numpy as jnp
from jax import Array
from jax.stages import Compiled

from throughtime._common.memory.budget import Amount, Budget, Need
from throughtime.adapters.loss_reduction import TRAINING, Alike, Loss, of_loss, tried_factor
from throughtime.adapters.records import ModelRecord, Request

from . import collect, find, models
from .computation import Computation, check_loss, total
from .loop import loops
from .models import Traced, traced
from .samples import Samples, T, shapes_of, steps_as_samples, tree_map

Judged = tuple[object, object, Array | None]  # output, labels and weights

_SHAPE = "an array of shape {shape} has no axis of the {samples} samples"


class Probe:
    """Captures the loops of one JAX program that `layers` chooses, see `selection.Selection.select`.

    `loss` is a callable (output, y) that returns a scalar or one value per sample, or None. Raises
    UnsupportedModelError for what is no model.
    """

    def __init__(self, model: object, *, loss: Loss | None, layers: object, request: Request) -> None:
        self.model, self.loss, self.layers, self.request = model, loss, layers, request
        models.taken_apart(model, training=request.training)
        self._known: dict[Hashable, tuple[Traced, Computation]] = {}
        self._expects_one = False
        self._samples: Samples | None = None
        self._part = Samples(0)
        self._alike: Alike[Judged] | None = None  # while a batch is captured in parts

    def __call__(self, x: object, y: object, sample_weight: object, budget: Budget) -> ModelRecord:
        """Capture one batch, without gradients if y is None; ExceededError if the budget is too small."""
        if y is not None:
            check_loss(self.loss)
        model = models.taken_apart(self.model, training=self.request.training)
        x, y, sample_weight = (jax.tree.map(jnp.asarray, data) for data in (x, y, sample_weight))
        current, computation = self._computation(model, x, y, sample_weight)
        samples, is_part = current.samples, budget.part < budget.samples
        if not is_part:
            self._samples = samples
        consts = list(current.program.consts.values())
        arguments = model.parameters, model.others, consts, jax.tree.leaves(x), y, sample_weight
        compiled = computation.compiled(arguments)
        if computation.need is None:
            computation.need = _need(compiled, samples.count)
        budget.check(computation.need)
        results = compiled(*arguments)
        data = jax.tree.map(_wide, (results.pop("output"), y, sample_weight))
        if y is not None and computation.reduced is None:
            computation.reduced = self._reduced(data, samples)
        reduced = None if y is None else computation.reduced
        results = collect.brought(results, 1 if reduced is None else reduced[0])
        record = collect.records(computation, model, results, reduced)
        if reduced is None or not is_part:
            return record
        return replace(record, why_whole=self._why_unlike(reduced[1], data, samples))

    def follow(self, model: object) -> None:
        """Capture this model from now on; compiled programs serve it if it is built alike."""
        self.model = model

    def samples(self, x: object) -> int:
        """Count the first axis of a batch: samples, unless a pass finds another axis."""
        leaves = [leaf for leaf in jax.tree.leaves(x) if getattr(leaf, "shape", ())]
        return int(leaves[0].shape[0]) if leaves else 1

    def part(self, data: T, rows: slice) -> T:
        """Take some of the samples of x, y and sample weights; known after a pass was too large."""
        samples = self._samples or Samples(0)
        return tree_map(lambda leaf: leaf[rows] if samples.of_data(leaf) == 0 else leaf[:, rows], data)

    def why_whole(self, data: object) -> str:
        """Tell why parts of a batch would not add up to it; known after a pass was too large."""
        assert self._samples is not None
        self._alike = None
        if self.request.training:
            return TRAINING
        for leaf in jax.tree.leaves(data):
            if getattr(leaf, "shape", ()) and self._samples.of_data(leaf) is None:
                return _SHAPE.format(shape=tuple(leaf.shape), samples=self._samples.count)
        return ""

    def expect_one_layer(self) -> None:
        """Refuse several layers where one is meant: when a batch has shown them."""
        self._expects_one = True

    def _computation(
        self, model: models.Model, x: object, y: object, weight: object
    ) -> tuple[Traced, Computation]:
        shapes = [shapes_of(part) for part in (model.parameters, model.others, x, y, weight)]
        key = (model.structure, *shapes)
        known = self._known.get(key) if model.structure is not None else None
        if known is None:
            current = traced(model, x)
            key = key if model.structure is not None else (*key, current.text)
            if key in self._known:  # what the program closes over may be other arrays
                return current, self._known[key][1]
            known = self._known[key] = current, self._chosen(model, current, has_labels=y is not None)
        return known

    def _chosen(self, model: models.Model, current: Traced, *, has_labels: bool) -> Computation:
        program = current.program
        found = loops(program, current.axes.get, is_single=current.samples.is_single)
        counts = len(model.parameters), len(model.others)
        entries = find.entries(program, found, *counts, model.paths)
        selection = find.selection(entries, program)
        chosen = selection.select(self.layers)
        if self._expects_one:
            selection.expect_one(chosen)
        wanted = self.request.quantities - (frozenset() if has_labels else self.request.gradients)
        return Computation(current, chosen, wanted, self.loss if has_labels else None)

    def _loss_of(self, data: Judged) -> float:
        assert self.loss is not None
        return float(total(self.loss, *data))

    def _reduced(self, data: Judged, samples: Samples) -> tuple[float, str]:
        """Find what the loss multiplies a sample's own gradient by, and name how it reduces samples."""
        refusals = (TypeError, ValueError, IndexError)
        output, y, weight = data
        if weight is not None and weight.ndim > 1:  # is the loss one of single steps?
            alone = Samples(weight.size)
            steps = *steps_as_samples((output, y), weight.shape), None
            how = tried_factor(lambda *rows: self._loss_of(alone.rows(steps, *rows)), alone.count, refusals)
            if how[1].startswith("couples"):
                return how
        return tried_factor(lambda *rows: self._loss_of(samples.rows(data, *rows)), samples.count, refusals)

    def _why_unlike(self, how: str, data: Judged, samples: Samples) -> str:
        """Return why the loss of this part does not add up with those before; empty where it does."""
        if why := of_loss(how):
            return why
        self._part = samples  # the last part may have fewer than those before
        if self._alike is None:
            rows = lambda data, rows: self._part.rows(data, *rows)  # noqa: E731
            self._alike = Alike(self._loss_of, rows, samples.joined, how)
        return self._alike.why_not(data, samples.count)


def _need(compiled: Compiled, samples: int) -> Need:
    """Read what the compiled program takes."""
    memory = compiled.memory_analysis()
    if memory is None:
        return Need()
    passing = memory.temp_size_in_bytes + memory.output_size_in_bytes
    kept = Amount(memory.output_size_in_bytes / samples)
    return Need({"everything": kept}, passing=Amount(passing / samples), left=kept)


def _wide(leaf: Array) -> Array:
    half = getattr(leaf, "dtype", None) in (jnp.float16, jnp.bfloat16)
    return leaf.astype(jnp.float32) if half else leaf
