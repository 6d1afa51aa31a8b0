"""`sweep`: captures of a whole data set at many checkpoints, on any executor, reduced to one run.

`task` captures one shard at one checkpoint; `parts` writes what is kept of it, and adds it up. `engine`
submits the tasks, `shards` loads data, `record` writes the run. Each adapter's `checkpoint` reads weights.
"""

from .sweep import open_sweep as open_sweep
from .sweep import sweep as sweep
