"""Trains with a monitor whose run lies on a disk that is full before long, and then has space again.

`sudo python benchmarks/faults/full_disk.py` mounts a tmpfs of 32 MB. Training must go on with one warning,
the run must stay readable with every step that was recorded, and go on once there is space. The test suite
lets every write of a step in turn find no space.
"""

import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import nn

import throughtime as tt

MEGABYTE = 2**20
STEPS, FREED_AT = 48, 40
MSE = nn.MSELoss()


class Reader(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.head = nn.LSTM(3, 32, batch_first=True), nn.Linear(32, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.rnn(x)[0][:, -1])


def train(disk: Path, *, background: bool) -> list[str]:
    """Train on a disk that a filler leaves little of; return the warnings."""
    torch.manual_seed(0)
    x = torch.randn(16, 32, 3)
    y, model, filler = x.sum((1, 2))[:, None], Reader(), disk / "filler"
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    filler.write_bytes(bytes(16 * MEGABYTE))
    monitor = tt.Monitor(
        disk / "run.zarr", (x, y), every=1, quantities="full", loss=MSE, background=background
    )
    with warnings.catch_warnings(record=True) as caught, monitor.watch(model):
        warnings.simplefilter("always")
        for step in range(1, STEPS + 1):
            optimizer.zero_grad()
            MSE(model(x), y).backward()
            optimizer.step()
            monitor.step()
            if step == FREED_AT:
                filler.unlink()
    return [str(each.message) for each in caught if issubclass(each.category, tt.ThroughTimeWarning)]


def look(disk: Path, told: list[str]) -> None:
    run = tt.open_run(disk / "run.zarr")["rnn"].to_dataset().compute()
    steps = run["step"].values
    full = [text for text in told if "No space left" in text]
    lost = sorted(set(range(STEPS + 1)) - set(steps.tolist()))
    print(
        f"  {len(steps)} steps recorded, {len(lost)} lost ({lost[:1]} to {lost[-1:]}); warnings: {len(full)}"
    )
    print(f"  {full[0]}" if full else "  the disk never was full: nothing was tried")
    holds = len(full) == 1 and len(lost) > 0 and max(lost) <= FREED_AT + 1 and FREED_AT + 2 in steps
    finite = all(np.isfinite(run[name]).all() for name in run.data_vars if run[name].dtype.kind == "f")
    whole = not list((disk / "run.zarr").rglob("*.tmp"))
    if not (holds and finite and whole):
        sys.exit("  This is not what was promised.")


if __name__ == "__main__":
    for background in (False, True):
        print("in a second thread:" if background else "at once:")
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run(["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", folder], check=True)
            try:
                look(Path(folder), train(Path(folder), background=background))
            finally:
                subprocess.run(["umount", folder], check=True)
