"""Records what flows through time while a model trains: a probe, a schedule, a run on disk, alarms.

`Monitor` is independent of the framework; `callbacks` connects it to the frameworks' training loops.
"""

from throughtime._monitor.monitor import Monitor as Monitor
from throughtime._monitor.schedules import every as every
from throughtime._monitor.schedules import logarithmic as logarithmic
from throughtime.diagnostics.alarm import Alarm as Alarm
