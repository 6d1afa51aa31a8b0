"""A page that follows a run while it grows: numbers read from the run on disk, drawn by a Bokeh server.

`Server` is all that the monitor and the command use. It reads the run as anyone else does, so it makes no
difference whether it runs in the process that trains or in another.
"""

from throughtime._pages.live.server import Server as Server
