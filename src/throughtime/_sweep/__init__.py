"""`sweep`: captures of a whole data set at many checkpoints, on any executor, reduced to one run.

`job` holds what every task needs, `task` captures one shard at one checkpoint, `part` is what it leaves,
`merge` adds parts up, `engine` submits the tasks, `shards` and `checkpoints` read data and weights.
"""

from .sweep import open_sweep as open_sweep
from .sweep import sweep as sweep
