"""The verdict: does a model learn long-term dependencies, and if not, why.

`diagnose` measures by a probe, the diagnostics and the prefix swap (`swap`), `judge` concludes, `words` has
every sentence, `compare` puts two diagnoses beside each other.
"""

from throughtime.diagnosis.comparison import Comparison as Comparison
from throughtime.diagnosis.comparison import compare as compare
from throughtime.diagnosis.diagnosis import Diagnosis as Diagnosis
from throughtime.diagnosis.entry import diagnose as diagnose
from throughtime.diagnosis.findings import Verdict as Verdict
from throughtime.diagnosis.training import TrainingDiagnosis as TrainingDiagnosis
from throughtime.diagnosis.verdict_file import read_verdict as read_verdict
