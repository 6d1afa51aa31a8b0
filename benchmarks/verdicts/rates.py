"""From truth and answers to error rates."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from .cases import Case
from .said import Said
from .truth import Truth


@dataclass(frozen=True)
class Row:
    """One network with one seed."""

    case: Case
    seed: int
    updates: int
    truth: Truth
    said: Said

    def as_json(self) -> str:
        told = {"truth": asdict(self.truth), "said": asdict(self.said)}
        return json.dumps({"case": self.case.name, "seed": self.seed, "updates": self.updates, **told})

    @staticmethod
    def from_json(line: str, by_name: Mapping[str, Case]) -> Row:
        told = json.loads(line)
        said = Said(**{**told["said"], "alarms": tuple(told["said"]["alarms"])})
        return Row(by_name[told["case"]], told["seed"], told["updates"], Truth(**told["truth"]), said)

    @property
    def unstable(self) -> bool:
        return self.said.verdict == "unstable"

    @property
    def alarmed(self) -> bool:
        return bool({"explosion", "nonfinite"} & set(self.said.alarms))

    @property
    def asked_of_use(self) -> bool:
        """Whether it counts for use: a network that diverges is asked about stability alone."""
        return self.truth.future != "diverges" and self.truth.use != "borderline"

    @property
    def wrong(self) -> str:
        faults = []
        if self.unstable and self.truth.future != "diverges":
            faults.append("FALSE UNSTABLE")
        if not self.unstable and self.truth.future == "diverges":
            faults.append("MISSED")
        if self.asked_of_use and self.said.use not in ("undecided", self.truth.use):
            faults.append("USE WRONG")
        return ", ".join(faults)

    @property
    def line(self) -> str:
        truth, said = self.truth, self.said
        numbers = f"U {truth.ratio:8.3g} gain {truth.gain:8.2g} loss {truth.loss:8.2g}"
        return (
            f"{self.case.name:32} {self.seed} {self.updates:5} | {truth.future:9} {truth.use:10} {numbers} | "
            f"{said.verdict:11} use {said.answer:12} faded {'yes' if said.faded else 'no ':3} | "
            f"{','.join(said.alarms) or '-':20} | {self.wrong}"
        )


def _rate(part: Sequence[Row], whole: Sequence[Row]) -> str:
    share = f"{len(part) / len(whole):.1%}" if whole else "-"
    return f"{len(part)} of {len(whole)} ({share})"


def print_rates(rows: Sequence[Row]) -> None:
    trains = [row for row in rows if row.truth.future == "trains on"]
    stays = [row for row in rows if row.truth.future == "stays"]
    diverges = [row for row in rows if row.truth.future == "diverges"]
    asked = [row for row in rows if row.asked_of_use]
    decided = [row for row in asked if row.said.use != "undecided"]
    print(f"\n{len({row.case.name for row in rows})} networks, {len(rows)} with their seeds")
    for what, marks in (("unstable", lambda row: row.unstable), ("alarm", lambda row: row.alarmed)):
        print(f"{what} of one that trains on:  {_rate([row for row in trains if marks(row)], trains)}")
        print(f"{what} of one that stays:      {_rate([row for row in stays if marks(row)], stays)}")
        print(
            f"no {what} of one that diverges: {_rate([row for row in diverges if not marks(row)], diverges)}"
        )
    print(f"use decided:               {_rate(decided, asked)}")
    right = [row for row in decided if row.said.use == row.truth.use]
    print(f"use right where decided:   {_rate(right, decided)}")
    for name in ("uses", "unused"):
        those = [row for row in decided if row.said.use == name]
        print(f"  said {name:7}:            {_rate([row for row in those if row.truth.use == name], those)}")
    refused = [row for row in rows if row.said.verdict == "refused"]
    print(f"refused:                   {_rate(refused, rows)}")
    same = [row for row in rows if row.alarmed == row.unstable]
    print(f"explosion alarm agrees with the verdict:   {_rate(same, rows)}")
    same = [row for row in rows if ("vanishing" in row.said.alarms) == row.said.faded]
    print(f"vanishing alarm agrees with the reach:     {_rate(same, rows)}")
