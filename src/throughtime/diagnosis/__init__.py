"""The verdict: whether a model learns long-term dependencies, and if not, why.

`diagnose` measures with a probe, the diagnostics and the prefix swap (`swap`), `judge` concludes,
`words.toml` contains every sentence, and `compare` compares two diagnoses.
"""

from throughtime.diagnosis.comparison import Comparison as Comparison
from throughtime.diagnosis.comparison import compare as compare
from throughtime.diagnosis.diagnosis import Diagnosis as Diagnosis
from throughtime.diagnosis.entry import diagnose as diagnose
from throughtime.diagnosis.results import Verdict as Verdict
from throughtime.diagnosis.training import TrainingDiagnosis as TrainingDiagnosis
from throughtime.diagnosis.verdict_file import read_verdict as read_verdict
