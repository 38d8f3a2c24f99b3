"""What a speed-up will be elsewhere: from tokens per round and the claims of a round, both counted, and a curve of costs.

A round of n claims brings as many tokens wherever it runs, as long as model, texts and drafts are the same; what differs is what
it costs. So the ratio to plain decoding is tokens a round * cost(1) / (cost(n) + drafting), with cost(n) read off the curve of
the other machine or model (`bench verify-cost --json`). Drafting is as it was here: in seconds where it is our own loop's, as a
part of cost(1) where a model drafts. On another model the tokens a round are a guess: a larger one is predicted as well or worse.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from treewright.bench.arguments import Parser, parse_files, positive
from treewright.bench.beside import beside_table, check_same_texts, paces
from treewright.bench.contestants import PLAIN
from treewright.bench.nodes import cost_at
from treewright.bench.records import CostRecord, Rounds, SpeedRecord, read_records
from treewright.bench.report import markdown, number, record_writer
from treewright.core.errors import InputError


@dataclass(frozen=True, slots=True)
class Prediction:
    """What is promised for one method, domain, kind of texts and temperature: the ratio to plain decoding. measured: what a run
    found there, None where there is none."""

    method: str
    domain: str
    texts: str
    temperature: float
    tokens_per_round: float
    claims: float
    predicted: float
    measured: float | None

    @property
    def error(self) -> float | None:
        """predicted / measured - 1."""
        return None if self.measured is None else self.predicted / self.measured - 1

    def to_json(self) -> dict[str, Any]:
        return {
            "task": "predict", "method": self.method, "domain": self.domain, "texts": self.texts,
            "temperature": self.temperature, "tokens_per_round": self.tokens_per_round, "claims_per_round": self.claims,
            "predicted_ratio_to_plain": self.predicted, "measured_ratio_to_plain": self.measured, "error": self.error,
        }  # fmt: skip


def predict(rounds: Rounds, costs: Mapping[int, float], outside: float) -> float:
    """The ratio to plain decoding that a method with these rounds has where rounds of n claims cost costs[n] seconds and the
    loop around a round of plain decoding takes `outside` seconds. Raises InputError where the curve is too short."""
    sizes = rounds.calls_by_columns
    forward = sum(count * cost_at(costs, size) for size, count in sizes.items()) / sum(sizes.values())
    around = rounds.outside_ms_per_round / 1000 + rounds.draft_share * costs[1]
    return rounds.tokens_per_call * (costs[1] + outside) / (forward + around)


def predictions(
    found: Sequence[SpeedRecord], costs: Mapping[int, float], measured: Sequence[SpeedRecord] | None = None
) -> list[Prediction]:
    """What is promised for every method of ours at temperature and batch of `found`; `measured` are the records of a run at the
    place that `costs` was measured (None: `found` itself). Methods whose rounds go beyond the curve are left out."""
    there = {record.key: record.ratio_to_plain for record in (found if measured is None else measured)}
    outside = {
        record.key[1:]: record.rounds.outside_ms_per_round / 1000
        for record in found
        if record.rounds is not None and record.method == PLAIN
    }
    return [
        Prediction(
            record.method, record.domain, record.texts, record.temperature, record.rounds.tokens_per_call,
            record.rounds.claims_per_round, predict(record.rounds, costs, outside[record.key[1:]]), there.get(record.key),
        )
        for record in found
        if record.rounds is not None and record.rounds.calls_by_columns and record.method != PLAIN and not _beyond(record, costs)
    ]  # fmt: skip


def _beyond(record: SpeedRecord, costs: Mapping[int, float]) -> bool:
    """Whether a method of ours had rounds of more claims than the curve knows."""
    return record.rounds is not None and max(record.rounds.calls_by_columns, default=0) > max(costs)


def curves(records: Sequence[CostRecord], rows: int) -> dict[str, dict[int, float]]:
    """Costs in seconds by number of claims, for every model and step (eager, compiled) of verify-cost records at this batch.
    Raises InputError where there is none, or one that does not say what a round of one claim costs."""
    found: dict[str, dict[int, float]] = {}
    for record in records:
        if record.batch == rows and record.shape == "tree":
            found.setdefault(record.place, {})[record.claims] = record.ms / 1000
    if not found:
        raise InputError(f"the costs hold no trees at batch {rows}; run bench verify-cost with --batches {rows} --shapes tree")
    for name, costs in found.items():
        if 1 not in costs:
            measured = ", ".join(map(str, sorted(costs)))
            raise InputError(f"the costs of {name} hold no round of 1 claim; measured: {measured}; run bench verify-cost again")
    return found


def arguments(argv: list[str]) -> argparse.Namespace:
    """The options of a run. Raises InputError."""
    parser = Parser("predict", "Speed-ups on another model or machine, from a run's counts and a curve of costs. Runs no model.")
    parser.add_argument("--run", type=Path, required=True, metavar="FILE", help="records of `bench spec` or `bench speed`")
    parser.add_argument(
        "--cost", type=Path, required=True, metavar="FILE", help="records of `bench verify-cost` at the other place"
    )
    parser.add_argument(
        "--measured", type=Path, default=None, metavar="FILE", help="records of a run there on the same prompts: tells how wrong "
        "the promise is, and sets it in tokens a second beside the peers that ran",
    )  # fmt: skip
    parser.add_argument("--batch", type=positive, default=1, help="rows; 1 if left out")
    parser.add_argument("--json", type=Path, default=None, metavar="FILE", help="write one JSON record a line to FILE")
    return parse_files(parser, argv)


def run(argv: list[str]) -> int:
    """Prints what is promised for each method, and how wrong that is where it is known; returns 0."""
    args = arguments(argv)
    found = [record for record in read_records(args.run, "speed", SpeedRecord.of) if record.batch == args.batch]
    there = None if args.measured is None else read_records(args.measured, "speed", SpeedRecord.of)
    if not found:
        raise InputError(f"{args.run} holds nothing at batch {args.batch}; give another --batch")
    _require_plain(args.run, found)
    places = curves(read_records(args.cost, "verify-cost", CostRecord.of), args.batch)
    if there is not None:
        check_same_texts(found[0].run, there[0].run)
        _check_place(places, there)
    with record_writer(args.json) as write:
        for name, costs in places.items():
            known = [one for one in there or [] if one.run.place == name and one.batch == args.batch]
            made = predictions(found, costs, known)
            left = sorted({record.method for record in found if _beyond(record, costs)})
            if left:
                print(
                    f"bench predict: {name}: left out, for their rounds have more than {max(costs)} claims: {', '.join(left)}; "
                    "measure more with `bench verify-cost --claims`", file=sys.stderr,
                )  # fmt: skip
            beside = paces({(one.method, (one.domain, one.texts, one.temperature)): one.predicted for one in made}, known)
            for line in [*(one.to_json() for one in made), *(one.to_json() for one in beside)]:
                write({"place": name} | line)
            print(f"\n## {name}, batch {args.batch}\n\n{table(made)}\n")
            if beside:
                print(f"### Tokens a second, beside what was measured there\n\n{beside_table(beside)}\n")
    return 0


def _check_place(places: Iterable[str], measured: Sequence[SpeedRecord]) -> None:
    """Raises InputError where a run is of no model and step whose costs are known."""
    ran = dict.fromkeys(record.run.place for record in measured)
    if not set(ran) & set(places):
        raise InputError(
            f"--measured ran {'; '.join(ran)}, but --cost holds {'; '.join(places)}; give the costs of the same model, "
            "dtype and step"
        )


def _require_plain(path: Path, found: Sequence[SpeedRecord]) -> None:
    """Raises InputError where a method's record has no record of plain decoding beside it."""
    beside = {record.key[1:] for record in found if record.method == PLAIN}
    for record in found:
        if record.key[1:] not in beside:
            raise InputError(
                f"{path} has no record of `plain` beside '{record.method}' (domain {record.domain}, texts {record.texts}, "
                f"temperature {record.temperature:g}, batch {record.batch}), and promises are ratios to plain decoding; give the "
                "whole file that `treewright bench spec --json FILE` wrote"
            )


def table(made: Sequence[Prediction]) -> str:
    """What was promised beside what was measured, in Markdown."""
    lines = [
        (one.method, one.domain, one.texts, number(one.tokens_per_round), number(one.claims, 1), number(one.predicted),
         number(one.measured), "-" if one.error is None else f"{100 * one.error:+.0f} %")
        for one in made
    ]  # fmt: skip
    headers = ("method", "domain", "texts", "MAT", "drafts/round", "x plain, promised", "x plain, measured", "error")
    return markdown(headers, lines, words=3) if lines else "No method drafts within the measured sizes."
