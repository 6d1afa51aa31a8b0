"""A run on disk: captures of one model at many training steps, in plain Zarr that xarray can open.

One file, the root's `zarr.json`, records what is committed: `Run.append` writes the chunks of a step first
and replaces that file last, in one move. A reader sees only whole steps, whenever the writer dies.
"""

from throughtime._store.checksums import damage as damage
from throughtime._store.lock import remove_run as remove_run
from throughtime._store.open_run import open_run as open_run
from throughtime._store.rewriting import pack as pack
from throughtime._store.run import Run as Run
