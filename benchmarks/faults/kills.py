"""Kills a process that records a run, again and again, and looks at what is left after each kill.

`python benchmarks/faults/kills.py [200]`. A committed step must never be lost, none may be half there, and
the next process goes on with the run. The test suite does the same a few times.
"""

import os
import subprocess
import sys
from pathlib import Path

TEST = Path(__file__).parents[2] / "tests/store/test_run.py"

if __name__ == "__main__":
    os.environ["THROUGHTIME_KILLS"] = sys.argv[1] if len(sys.argv) > 1 else "200"
    command = [sys.executable, "-m", "pytest", "-q", f"{TEST}::test_a_killed_writer_loses_no_committed_step"]
    sys.exit(subprocess.run([*command, "--timeout=0"], check=False).returncode)
