"""
Where does the first NaN come from?
===================================

One value of the data is NaN. From there on every state of that sample is; the first number that is not
finite names sample, step and feature.
"""

import warnings

import torch
from _recall import LOSS, Reader, task

import throughtime as tt

torch.manual_seed(0)
x, y = task(samples=8, features=3)
x[5, 17, 1] = torch.nan
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of the certificate: there is nothing to compare
    tree = tt.capture(Reader(torch.nn.GRU(3, 16, batch_first=True)), x, y, loss=LOSS)
picture = tt.plots.heatmap(
    tree["rnn"]["hidden"].mean("unit", skipna=False), rows="sample", title="States, mean over units"
)

found = tt.diagnostics.first_nonfinite(tree)
assert (found.variable, found.where["sample"], found.where["time"]) == ("input", 5, 17)
print(f"From the data: {found}.")
