"""Captures of native torch modules against a training step of the same module."""

from collections.abc import Callable, Iterator

import torch
from blocks import Row, emit, ratios
from captures import QUANTITIES, SIZES
from monitors import cost_rows, torch_training, write_row
from torch import nn

import throughtime as tt

KINDS = {"LSTM": nn.LSTM, "GRU": nn.GRU}
CELLS = {"LSTMCell": nn.LSTMCell, "GRUCell": nn.GRUCell}
MSE = nn.MSELoss()


class Reader(nn.Module):
    """Two layers and a head on the last step."""

    def __init__(self, kind: str, units: int) -> None:
        super().__init__()
        self.rnn = KINDS[kind](8, units, num_layers=2, batch_first=True)
        self.head = nn.Linear(units, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.rnn(x)[0][:, -1])


class Loop(nn.Module):
    """A cell in a loop and a head on its last state."""

    def __init__(self, kind: str, units: int) -> None:
        super().__init__()
        self.cell = CELLS[kind](8, units)
        self.head = nn.Linear(units, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        state = None
        for step in x.unbind(1):
            state = self.cell(step, state)
        return self.head(state[0] if isinstance(state, tuple) else state)


def batch(samples: int, steps: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(samples, steps, 8, generator=generator)
    return x, torch.randn(samples, 1, generator=generator)


def training_step(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> Callable[[], None]:
    optimizer = torch.optim.Adam(model.parameters())

    def step() -> None:
        optimizer.zero_grad()
        MSE(model(x), y).backward()
        optimizer.step()

    return step


def rows() -> Iterator[Row]:
    cases = [(Reader, kind, *size) for kind in KINDS for size in SIZES]
    cases += [(Loop, kind, 64, 32, 100) for kind in CELLS]
    for make, kind, units, samples, steps in cases:
        model, (x, y) = make(kind, units), batch(samples, steps)
        probes = {
            "output gradients ÷ training step": tt.Probe(model, loss=MSE, quantities="output_gradient"),
            "everything ÷ training step": tt.Probe(model, loss=MSE),
        }
        calls = {what: lambda probe=probe, x=x, y=y: probe(x, y) for what, probe in probes.items()}
        for what, ratio in ratios(calls, training_step(model, x, y)):
            yield {"what": what, "case": f"{kind} n={units} B={samples} T={steps}", "ratio": ratio}
    yield from quantity_rows("LSTM", 64, 32, 400)
    yield from cost_rows("a loop in torch", torch_training())
    yield write_row()


def quantity_rows(kind: str, units: int, samples: int, steps: int) -> Iterator[Row]:
    model, (x, y) = Reader(kind, units), batch(samples, steps)
    probes = {name: tt.Probe(model, loss=MSE, quantities=name) for name in QUANTITIES}
    calls = {name: lambda probe=probe: probe(x, y) for name, probe in probes.items()}
    for name, ratio in ratios(calls, training_step(model, x, y)):
        case = f"{name}, {kind} n={units} B={samples} T={steps}"
        yield {"what": "one quantity ÷ training step", "case": case, "ratio": ratio}


if __name__ == "__main__":
    emit(rows())
