"""`sweep`: captures of a whole data set at many checkpoints, on any executor, reduced to one run.

`job` holds the settings of all tasks. `task` captures one shard at one checkpoint, and adds parts up; `part`
is the reduced capture, with quantiles by `sketch`. `engine` submits the tasks, `shards` loads data, `files`
writes parts. Each adapter's `checkpoint` reads weights.
"""

from .sweep import open_sweep as open_sweep
from .sweep import sweep as sweep
