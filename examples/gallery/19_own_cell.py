"""
What does my own cell remember?
===============================

A cell with one gate, called in a loop. Its state is found by itself, and `tt.mark` names the gate.
"""

import torch
from _recall import LOSS, task

import throughtime as tt


class GatedUnit(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.both = torch.nn.Linear(24, 40)

    def forward(self, x, h):
        update, candidate = self.both(torch.cat([x, h], 1)).chunk(2, 1)
        update = tt.mark(torch.sigmoid(update + 1), "update")
        return update * h + (1 - update) * torch.tanh(candidate)


class Model(torch.nn.ModuleDict):
    def forward(self, x):
        h = x.new_zeros(len(x), 20)
        for now in x.unbind(1):
            h = self["cell"](now, h)
        return self["head"](h)


torch.manual_seed(0)
model = Model({"cell": GatedUnit(), "head": torch.nn.Linear(20, 1)})
leaf = tt.capture(model, *task(features=4), loss=LOSS)["cell"]
picture = tt.plots.lag_profile(leaf)
horizon = int(tt.diagnostics.memory_horizon_median(leaf)["median"])
update = float(leaf["gate_activation"].mean())
assert 20 < horizon < 39
print(f"Inputs of the last {horizon} steps: each step keeps {update:.0%} of the state.")
