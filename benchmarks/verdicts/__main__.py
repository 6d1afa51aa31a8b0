"""Judge the verdict on the networks of one half, and print where it is right.

Run: python -m benchmarks.verdicts --half choose --cache FOLDER
"""

from __future__ import annotations

import argparse
import os
import pathlib
import sys
from collections.abc import Iterator

os.environ.setdefault("KERAS_BACKEND", "torch")

from . import trained as trained_networks
from . import untrained, with_keras
from .cases import SEEDS, Case, chosen
from .rates import Row, print_rates
from .said import said
from .training import trained
from .truth import truth

CASES = [*untrained.NETWORKS, *trained_networks.NETWORKS, *with_keras.NETWORKS]


def rows(cases: list[Case], settings: argparse.Namespace) -> Iterator[Row]:
    for case in cases:
        for seed in range(settings.seeds):
            network = trained(case, seed, settings.cache)
            yield Row(case, seed, network.updates, truth(network), said(network, settings.samples))


def main() -> None:
    reads = argparse.ArgumentParser(description=__doc__)
    reads.add_argument("--half", choices=("choose", "judge", "all"), required=True)
    reads.add_argument("--only", default="", help="part of a name")
    reads.add_argument("--samples", type=int, default=64, help="in the batch that is diagnosed")
    reads.add_argument("--seeds", type=int, default=len(SEEDS))
    reads.add_argument("--cache", type=pathlib.Path, help="folder of trained weights")
    reads.add_argument("--text", action="store_true", help="print each diagnosis that is wrong")
    settings = reads.parse_args()
    cases = chosen(CASES, settings.half, settings.only)
    found = []
    for row in rows(cases, settings):
        found.append(row)
        print(row.line, flush=True)
        if settings.text and row.wrong:
            print(row.said.text, flush=True)
    print_rates(found)
    sys.exit(0)


if __name__ == "__main__":
    main()
