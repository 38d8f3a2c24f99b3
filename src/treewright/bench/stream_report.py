"""The figures of a stream: every method on every kind of text and on the whole, and what is to be said of those that adapt."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from treewright.bench.report import interval, markdown, number
from treewright.bench.speed_report import EVERY, divergences, equality
from treewright.bench.statistics import Cost, Interval, speed_ratio

Record = dict[str, Any]
HEADERS = (
    "method", "segment", "equal to plain", "tokens", "rounds", "tokens/call", "seconds", "x plain", "x best fixed",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Verdict:
    """One adapting method under one setting: its speed over the whole stream beside the best fixed method's, and the segment in
    which it stands worst beside plain decoding."""

    method: str
    temperature: float
    batch: int
    best_fixed: str
    whole: Interval
    worst_segment: str
    worst: Interval

    def __str__(self) -> str:
        return (
            f"- whole stream: {self.method} is {interval(self.whole)} of the best fixed method ({self.best_fixed})\n"
            f"- worst segment: {self.method} is {interval(self.worst)} of plain ({self.worst_segment})"
        )

    def to_json(self) -> Record:
        """Plain data, under a task of its own, so that records of segments are not mixed with it."""
        return {"task": "stream verdict"} | dataclasses.asdict(self)


def beside_best(found: Sequence[Record], adaptive: Collection[str]) -> list[Record]:
    """The records of one setting, each with its ratio to the fixed method that was fastest over the whole stream (plain decoding
    is one). That one is chosen with the figures that are compared, which favours it."""
    fixed = [record for record in found if record["domain"] == EVERY and record["method"] not in adaptive]
    best = min(fixed, key=lambda record: record["ms_per_token"])["method"]
    theirs = {record["domain"]: _costs(record) for record in found if record["method"] == best}
    return [
        record | {
            "adaptive": record["method"] in adaptive, "best_fixed": best,
            "ratio_to_best_fixed": dataclasses.asdict(speed_ratio(theirs[record["domain"]], _costs(record))),
        }
        for record in found
    ]  # fmt: skip


def _costs(record: Record) -> list[Cost]:
    return [Cost(*unit) for unit in zip(record["unit_seconds"], record["unit_tokens"], strict=True)]


def verdicts(found: Sequence[Record]) -> list[Verdict]:
    """What is to be said of each adapting method of `beside_best`'s records."""
    judged = []
    for whole in found:
        if whole["adaptive"] and whole["domain"] == EVERY:
            own = [record for record in found if record["method"] == whole["method"] and record["domain"] != EVERY]
            worst = min(own, key=lambda record: record["ratio_to_plain"]["value"])
            judged.append(Verdict(
                whole["method"], whole["temperature"], whole["batch"], whole["best_fixed"],
                Interval(**whole["ratio_to_best_fixed"]), worst["domain"], Interval(**worst["ratio_to_plain"]),
            ))  # fmt: skip
    return judged


def report(found: Sequence[Record], judged: Sequence[Verdict]) -> str:
    """The records of one setting in Markdown, the verdicts, and every place where a greedy text left plain decoding's."""
    parts = [markdown(HEADERS, [_row(record) for record in found], words=3), "\n".join(map(str, judged))]
    listed = [line for record in found if record["domain"] == EVERY for line in divergences(record)]
    return "\n\n".join([*parts, *(["### Divergences\n\n" + "\n".join(listed)] if listed else [])])


def _row(record: Record) -> tuple[str, ...]:
    ratios = [interval(Interval(**record[f"ratio_to_{name}"])) for name in ("plain", "best_fixed")]
    segment = "whole stream" if record["domain"] == EVERY else record["domain"]
    return (
        record["method"], segment, equality(record), str(record["new_tokens"]), str(record["row_rounds"]),
        number(record["tokens_per_call"]), number(record["seconds"]), *ratios,
    )  # fmt: skip
