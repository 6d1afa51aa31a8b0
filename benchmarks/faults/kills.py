"""Kills processes that record, again and again, and looks at what is left after each kill.

`python benchmarks/faults/kills.py [200]`: so many kills of a writer, and a tenth of them of trainings with a
monitor, in a second thread and without. A committed step must never be lost, none may be half there, and the
next process goes on with the run. The test suite does the same a few times.
"""

import os
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parents[2] / "tests"
WRITER = TESTS / "store/test_run.py::test_a_killed_writer_loses_no_committed_step"
TRAININGS = TESTS / "monitor/test_kills.py"

if __name__ == "__main__":
    kills = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    codes = [
        subprocess.run(
            [sys.executable, "-m", "pytest", "-q", str(test), "--timeout=0"],
            env={**os.environ, "THROUGHTIME_KILLS": str(count)},
            check=False,
        ).returncode
        for test, count in ((WRITER, kills), (TRAININGS, max(1, kills // 10)))
    ]
    sys.exit(max(codes))
