"""A recurrent policy over a rollout: an LSTM that is called step by step and starts anew with each episode.

Ask it whether gradient crosses from one episode into the one before: `tt.diagnostics.boundary_leak`.
"""

import numpy as np
import torch
from torch import nn

import throughtime as tt

RECURRENT = ("memory",)
ENVIRONMENTS, STEPS, OBSERVED, ACTIONS, UNITS = 8, 32, 4, 3, 12


class Policy(nn.Module):
    """LSTM and the logits of each action, for rollouts of several environments."""

    def __init__(self) -> None:
        super().__init__()
        self.memory = nn.LSTM(OBSERVED, UNITS)
        self.actions = nn.Linear(UNITS, ACTIONS)

    def forward(self, observed: torch.Tensor, starts: torch.Tensor) -> torch.Tensor:
        """Return logits (environment, step, action); `starts` is 1 where an episode begins."""
        state = (observed.new_zeros(1, len(observed), UNITS),) * 2
        outputs = []
        for now, start in zip(observed.unbind(1), starts.unbind(1), strict=True):
            kept = (1 - start)[None, :, None]
            output, state = self.memory(now[None], (state[0] * kept, state[1] * kept))
            outputs.append(self.actions(output[0]))
        return torch.stack(outputs, 1)


def build() -> Policy:
    """Make the policy."""
    torch.manual_seed(0)
    return Policy()


def loss(logits: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of the action at each step."""
    return nn.functional.cross_entropy(logits.transpose(1, 2), actions, reduction="none")


def batch(seed: int = 0) -> tuple[tuple[np.ndarray, np.ndarray], np.ndarray]:
    """Draw observations and episodes; the right action is the largest sum since the episode began."""
    rng = np.random.default_rng(seed)
    observed = rng.normal(size=(ENVIRONMENTS, STEPS, OBSERVED)).astype("float32")
    starts = (rng.random((ENVIRONMENTS, STEPS)) < 0.1).astype("float32")
    starts[:, 0] = 1
    total, actions = np.zeros((ENVIRONMENTS, ACTIONS)), []
    for step in range(STEPS):
        total = total * (1 - starts[:, step, None]) + observed[:, step, :ACTIONS]
        actions.append(total.argmax(1))
    return (observed, starts), np.stack(actions, 1)


if __name__ == "__main__":
    (observed, starts), actions = batch()
    tree = tt.capture(build(), (observed, starts), actions, loss=loss)
    leaks = tt.diagnostics.boundary_leak(tree["memory"], starts)
    print(f"{len(leaks)} leaks across {int(starts[:, 1:].sum())} boundaries")  # noqa: T201
    tt.save(tt.plots.heatmap(tree), "recurrent_policy.png")
