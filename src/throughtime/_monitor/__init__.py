"""Records what flows through time while a model trains: a probe, a schedule, a run on disk, alarms.

`Monitor` belongs to no framework; `callbacks/` lets it into their training loops.
"""

from throughtime._alarm import Alarm as Alarm
from throughtime._monitor.monitor import Monitor as Monitor
from throughtime._monitor.schedules import every as every
from throughtime._monitor.schedules import logarithmic as logarithmic
