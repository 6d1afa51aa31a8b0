"""What `import throughtime` takes in a fresh process, against the arrays it builds on."""

import subprocess
import sys
from collections.abc import Callable, Iterator

from blocks import Row, block, emit


def import_rows() -> Iterator[Row]:
    def start(program: str) -> Callable[[], object]:
        return lambda: subprocess.run([sys.executable, "-c", program], check=True)

    what, case = "import throughtime ÷ import numpy, xarray", "a process each"
    reference, ours = (block(start(f"import {names}")) for names in ("numpy, xarray", "throughtime"))
    yield {"what": what, "case": case, "ratio": ours / reference}


if __name__ == "__main__":
    emit(import_rows())
