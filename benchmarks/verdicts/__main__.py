"""Judge the verdict on the networks of one half, and print where it is right.

Run: python -m benchmarks.verdicts --half choose --cache FOLDER
"""

from __future__ import annotations

import argparse
import os
import pathlib
import sys
import time

os.environ.setdefault("KERAS_BACKEND", "torch")

from . import trained as trained_networks
from . import untrained, with_keras
from .cases import SEEDS, Case, chosen
from .rates import Row, print_rates
from .said import said
from .training import trained
from .truth import truth

CASES = [*untrained.NETWORKS, *trained_networks.NETWORKS, *with_keras.NETWORKS]


def kept_rows(file: pathlib.Path | None) -> dict[tuple[str, int], Row]:
    """Read what an earlier, broken off call has judged already."""
    by_name, found = {case.name: case for case in CASES}, {}
    for line in file.read_text().splitlines() if file is not None and file.exists() else []:
        row = Row.from_json(line, by_name)
        found[row.case.name, row.seed] = row
    return found


def judged(case: Case, seed: int, settings: argparse.Namespace) -> Row:
    network = trained(case, seed, settings.cache)
    so = truth(network, settings.cache)
    row = Row(case, seed, network.updates, so, said(network, settings.samples))
    if settings.rows is not None:
        with settings.rows.open("a") as file:
            file.write(row.as_json() + "\n")
    return row


def main() -> None:
    reads = argparse.ArgumentParser(description=__doc__)
    reads.add_argument("--half", choices=("choose", "judge", "all"), required=True)
    reads.add_argument("--only", default="", help="part of a name")
    reads.add_argument("--samples", type=int, default=64, help="in the batch that is diagnosed")
    reads.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    reads.add_argument("--cache", type=pathlib.Path, help="folder of trained weights")
    reads.add_argument("--rows", type=pathlib.Path, help="file that keeps what was judged, to go on from")
    reads.add_argument("--at-most", type=float, default=float("inf"), help="seconds of processor time")
    reads.add_argument("--truth", action="store_true", help="train and measure the truth, judge nothing")
    reads.add_argument("--text", action="store_true", help="print each diagnosis that is wrong")
    settings = reads.parse_args()
    found = kept_rows(settings.rows)
    cases = chosen(CASES, settings.half, settings.only)
    asked = [(case, seed) for seed in settings.seeds for case in cases]
    for case, seed in asked:
        if time.process_time() > settings.at_most:
            sys.exit(3)
        if (case.name, seed) in found:
            continue
        if settings.truth:
            print(case.name, seed, truth(trained(case, seed, settings.cache), settings.cache), flush=True)
            continue
        row = found[case.name, seed] = judged(case, seed, settings)
        print(row.line, flush=True)
        if settings.text and row.wrong:
            print(row.said.text, flush=True)
    if not settings.truth:
        print_rates([found[case.name, seed] for case, seed in asked])


if __name__ == "__main__":
    main()
