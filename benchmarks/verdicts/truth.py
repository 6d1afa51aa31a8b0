"""What is so: use by exchanging old inputs of thousands of fresh samples, stability by training on.

Nothing here comes from the package that is judged.
"""

from __future__ import annotations

import json
import pathlib
from dataclasses import asdict, dataclass

import numpy as np
import torch

from .training import SAMPLES, Trained, generator, per_sample, trivial

POPULATION, PARTNERS, STEPS = 4096, 4, 50
THRESHOLD, MARGIN = 0.01, 2.0


@dataclass(frozen=True)
class Truth:
    """What is so of one network.

    Attributes
    ----------
    future : "trains on", "stays" or "diverges"
        Over the next 50 steps with its own optimizer and no clipping.
    use : "uses", "unused" or "borderline"
    ratio : float
        Rise of the mean loss without inputs of the lag and older, by the rise without all.
    gain : float
        The rise without all, by the mean loss.
    loss : float
    constant : float
        Loss of the best constant.
    """

    future: str
    use: str
    ratio: float
    gain: float
    loss: float
    constant: float


def truth(network: Trained, folder: pathlib.Path | None) -> Truth:
    """Measure what is so, or take it from a folder where it was kept."""
    kept = folder / f"{network.case.name}-{network.seed}.json" if folder is not None else None
    if kept is not None and kept.exists():
        return Truth(**json.loads(kept.read_text()))
    ratio, gain, loss = population_use(network)
    constant = trivial(network.case)
    use = network.case.use or _use(ratio, gain)
    if use == "uses" and loss > constant:  # a constant does better: inputs help and harm at once
        use = "borderline"
    found = Truth(future(network), use, ratio, gain, loss, constant)
    if kept is not None:
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps(asdict(found)))
    return found


def _use(ratio: float, gain: float) -> str:
    """Name use, a factor of two from the threshold; inputs that do not pay are not used."""
    if not np.isfinite(gain):
        return "borderline"
    if gain < THRESHOLD / MARGIN:
        return "unused"
    if gain < THRESHOLD * MARGIN:
        return "unused" if ratio < THRESHOLD / MARGIN else "borderline"
    if ratio >= THRESHOLD * MARGIN:
        return "uses"
    return "unused" if ratio < THRESHOLD / MARGIN else "borderline"


def _ages(valid: torch.Tensor, both: bool, anchor: int | None) -> torch.Tensor:
    """Steps between each input and where it is read; the nearer end of two."""
    time = torch.arange(valid.shape[1])
    if anchor is not None:
        away = anchor - time
        age = (away.abs() if both else away).expand(valid.shape)
    else:
        end = valid.sum(1, keepdim=True).long() - 1
        age = torch.minimum(end - time, time.expand(valid.shape)) if both else end - time
    return torch.where(valid, age, -1)


def _exchanged(x, valid, age, lag, draws):
    """Give the inputs of an age and more those of another sample of the same length."""
    partner = torch.empty(len(x), dtype=torch.long)
    lengths = valid.sum(1)
    for length in lengths.unique():
        members = torch.nonzero(lengths == length)[:, 0]
        members = members[torch.randperm(len(members), generator=draws)]
        partner[members] = members.roll(1)
    return torch.where((age >= lag)[:, :, None], x[partner], x)


@torch.no_grad()
def population_use(network: Trained) -> tuple[float, float, float]:
    case, draws = network.case, generator(5000 + network.seed)
    x, y = case.task.draw(POPULATION, draws)
    valid = x[..., -1] != 0 if case.task.masked else torch.ones(x.shape[:2], dtype=torch.bool)
    steps = case.task.steps
    first = max(case.lag, steps // 2)
    anchors = np.unique(np.linspace(first, steps - 1, 4).round().astype(int)) if case.task.every else [None]
    rises, losses = [], []
    for anchor in anchors:
        at = ... if anchor is None else (slice(None), int(anchor))
        own = per_sample(case, network.output(x), y)[at]
        age = _ages(valid, case.both, anchor)
        rises.append([])
        for lag in (case.lag, 0):
            lost = [_exchanged(x, valid, age, lag, draws) for _ in range(PARTNERS)]
            rises[-1].append(
                np.mean([float(per_sample(case, network.output(each), y)[at].mean()) for each in lost])
                - float(own.mean())
            )
        losses.append(float(own.mean()))
    old, full = np.mean(rises, axis=0)
    loss = float(np.mean(losses))
    return (
        float(old / full) if full else 0.0,
        float(full / loss) if loss else float(np.sign(full)) * 1e9,
        loss,
    )


@torch.no_grad()
def _answers(network: Trained, x: torch.Tensor) -> bool:
    """Whether the output depends on the input: it differs between samples."""
    output = network.output(x)
    return bool((output != output[:1]).any())


def future(network: Trained) -> str:
    """Train on for fifty steps; what the loss of fixed samples does is the answer."""
    case = network.case
    other, draws = network.copied(), generator(9000 + network.seed)
    held = case.task.draw(256, generator(8000 + network.seed))
    seen, had_answers = [other.loss(*held)], _answers(other, held[0])
    for _ in range(STEPS):
        other.step(*case.task.draw(SAMPLES, draws), None)
        seen.append(other.loss(*held))
    start, end, constant = seen[0], float(np.median(seen[-10:])), trivial(case)
    is_dead = had_answers and not _answers(other, held[0])
    if not np.isfinite(seen).all() or end > 3 * max(start, 0.1 * constant) or is_dead:
        return "diverges"
    if end < 0.98 * start or end < 0.1 * constant:
        return "trains on"
    return "stays"
