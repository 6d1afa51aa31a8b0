"""Training: before a network is judged, and the fifty steps after that judge it. Plain PyTorch and Keras."""

from __future__ import annotations

import copy
import pathlib

import torch

from .cases import Case
from .models import Reader

SAMPLES = 32


def generator(seed):
    return torch.Generator().manual_seed(seed)


def per_sample(case: Case, output, y):
    """Loss (sample) or, with a label at every step, (sample, time)."""
    if case.task.loss == "entropy":
        return torch.nn.functional.cross_entropy(output, y, reduction="none")
    return ((output - y) ** 2).mean(-1)


def loss_of(case: Case):
    """Give the loss as a caller has it."""
    return torch.nn.CrossEntropyLoss() if case.task.loss == "entropy" else torch.nn.MSELoss()


def trivial(case: Case) -> float:
    """Loss of the best constant."""
    _, y = case.task.draw(4096, generator(99))
    return float(torch.log(torch.tensor(2.0))) if case.task.loss == "entropy" else float(y.var())


class Trained:
    """A model with its optimizer; `step` trains it once."""

    def __init__(self, case: Case, seed: int) -> None:
        self.case, self.seed = case, seed
        torch.manual_seed(seed)
        if case.framework == "keras":
            import keras  # noqa: PLC0415 - chosen by its backend first

            keras.utils.set_random_seed(seed)
        self.model = case.make() if case.make else _reader(case)
        if case.start is not None:
            case.start(self.model)
        self.updates = 0
        if case.framework == "torch":
            kinds = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}
            self.optimizer = kinds[case.optimizer](self.model.parameters(), case.rate)

    def output(self, x):
        return self.model(x)

    def step(self, x, y, clip: float | None) -> None:
        if self.case.framework == "keras":
            self.model.train_on_batch(x.numpy(), y.numpy())
            return
        self.optimizer.zero_grad()
        loss_of(self.case)(self.model(x), y).backward()
        if clip is not None:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), clip)
        self.optimizer.step()

    @torch.no_grad()
    def loss(self, x, y) -> float:
        return float(per_sample(self.case, self.output(x), y).mean())

    def train(self) -> None:
        """Train until the loss on fresh samples is a fraction of a constant's."""
        case, draws = self.case, generator(1000 + self.seed)
        if case.until is None:
            return
        goal, held = case.until * trivial(case), case.task.draw(256, generator(7))
        while self.updates < case.updates:
            self.step(*case.task.draw(SAMPLES, draws), case.clip)
            self.updates += 1
            if self.updates % 20 == 0 and self.loss(*held) < goal:
                return

    def copied(self) -> Trained:
        """Make another with the same weights and optimizer."""
        if self.case.framework == "keras":
            other = Trained(self.case, self.seed)
            other.model.set_weights(self.model.get_weights())
            return other
        other = copy.copy(self)
        other.model, other.optimizer = copy.deepcopy((self.model, self.optimizer))
        return other


def _reader(case: Case) -> Reader:
    task = case.task
    return Reader(
        case.cell,
        task.features,
        case.units,
        task.outputs,
        head=case.head,
        both=case.both,
        layers=case.layers,
        masked=task.masked,
    )


def trained(case: Case, seed: int, folder: pathlib.Path | None) -> Trained:
    """Train a network, or take it from a folder where it was kept."""
    network = Trained(case, seed)
    if case.until is None:
        return network
    kept = folder / f"{case.name}-{seed}.pt" if folder is not None else None
    if kept is not None and kept.exists():
        weights, state, network.updates = torch.load(kept)
        network.model.load_state_dict(weights)
        network.optimizer.load_state_dict(state)
        return network
    network.train()
    if kept is not None:
        kept.parent.mkdir(parents=True, exist_ok=True)
        state = network.model.state_dict(), network.optimizer.state_dict(), network.updates
        torch.save(state, kept)
    return network
