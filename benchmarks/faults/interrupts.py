"""Interrupts captures before lines chosen at random, and looks for traces of them after each.

`python benchmarks/faults/interrupts.py [50]`: so many interrupts a model, over torch modules and Keras models
on each backend. The test suite does the same a few times.
"""

import os
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parents[2] / "tests"
TORCH, KERAS = TESTS / "torch/test_interrupts.py", TESTS / "keras/test_interrupts.py"
RUNS = [("torch", TORCH), *((backend, KERAS) for backend in ("torch", "tensorflow", "jax"))]

if __name__ == "__main__":
    count = sys.argv[1] if len(sys.argv) > 1 else "50"
    codes = [
        subprocess.run(
            [sys.executable, "-m", "pytest", "-q", str(test), "--timeout=0"],
            env={**os.environ, "THROUGHTIME_INTERRUPTS": count, "KERAS_BACKEND": backend},
            check=False,
        ).returncode
        for backend, test in RUNS
    ]
    sys.exit(max(codes))
