"""`bench spec`: the Spec-Bench protocol on any model: every lossless drafter, plain decoding and the peers, on one table.

The run is `bench speed`'s, by task of Spec-Bench (`--data`), batch 1, greedy and at temperature 1, 128 new tokens. Beside it: how
deep drafts were accepted, and what a cost model promises from the counts and from the costs of rounds measured on the spot, with
how wrong it was. Texts are of the first turn; MAT (mean accepted tokens, bonus included) compares across machines, times do not.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from treewright.bench import speed
from treewright.bench.costs import claim_costs
from treewright.bench.predict import Prediction, predictions, table
from treewright.bench.prompt_sets import CATEGORIES
from treewright.bench.records import Line, SpeedRecord
from treewright.bench.report import interval, markdown, number, record_writer
from treewright.bench.speed_report import EVERY, VARIED
from treewright.bench.statistics import Interval
from treewright.core.errors import InputError
from treewright.plots import canvas
from treewright.plots.spec import Method, draw_spec

Record = dict[str, Any]

SIZES = (1, 2, 4, 8, 16, 24, 32, 48, 64, 96)


def arguments(argv: list[str]) -> argparse.Namespace:
    """The options of a run: those of `bench speed`, with this protocol's defaults, and `--plot`. Raises InputError."""
    parser = speed.make_parser("spec", "The Spec-Bench protocol: lossless drafters beside plain decoding and the peers.")
    parser.add_argument("--plot", type=Path, default=None, metavar="FILE", help="draw depths, sizes and promises (.png ...)")
    args = speed.read(parser, argv, batches=(1,))
    if args.domains is None and args.data is not None:
        args.domains = tuple(CATEGORIES)
    if args.plot is not None:
        canvas.check(args.plot)
        if not args.plot.absolute().parent.is_dir():
            raise InputError(f"--plot {args.plot}: folder {args.plot.absolute().parent} does not exist; create it first")
    return args


def run(argv: list[str]) -> int:
    """Measures and prints; returns 0, or 1 if a lossless method's greedy text leaves plain decoding's without excuse."""
    args = arguments(argv)
    bench, found = speed.prepare(args), list[Record]()
    with record_writer(args.json) as write:

        def keep(record: dict[str, Any]) -> None:
            found.append(record)
            write(record)

        equal = bench.run(keep)
        print("bench spec: measuring what rounds cost", file=sys.stderr, flush=True)
        greedy = [one for one in found if one["temperature"] == min(args.temperatures) and one["batch"] == min(args.batches)]
        costs = claim_costs(bench.loaded, min(args.batches), SIZES)
        told = [one for one in greedy if one["domain"] == _widest(greedy)]
        promised = predictions([SpeedRecord.of(Line("this run", "spec", one)) for one in told], costs)
        for one in promised:
            write(bench.context | one.to_json())
    print(f"{summary(found)}\n\n## The cost model beside the measurement\n\n{table(promised)}\n", flush=True)
    if args.plot is not None:
        draw_spec(drawn(greedy, promised), args.plot, f"{bench.loaded.name}: {len(bench.prompts)} prompts")
    return 0 if equal else 1


SUMMARY = ("method", "MAT", "MAT, varied texts", "calls/token", "drafts/round", "x transformers", "x transformers, varied")


def summary(found: Sequence[Record]) -> str:
    """One line for each contestant and setting, over all domains; "varied" are texts of low repetition."""
    parts = []
    for heat, rows in dict.fromkeys((record["temperature"], record["batch"]) for record in found):
        here = [one for one in found if (one["temperature"], one["batch"]) == (heat, rows)]
        widest = _widest(here)
        every = [one for one in here if one["domain"] == widest and one["texts"] == EVERY]
        varied = {one["method"]: one for one in here if one["domain"] == widest and one["texts"] == VARIED}
        table = markdown(SUMMARY, [_line(one, varied.get(one["method"])) for one in every])
        parts.append(f"## All domains, temperature {heat:g}, batch {rows}\n\n{table}")
    return "\n\n".join(parts)


def _widest(found: Sequence[Record]) -> str:
    """All domains together, or the only one."""
    return EVERY if any(one["domain"] == EVERY for one in found) else str(found[0]["domain"])


def _line(every: Record, varied: Record | None) -> tuple[str, ...]:
    return (
        every["method"], number(every["tokens_per_call"]), number(varied["tokens_per_call"] if varied else None),
        number(every["calls_per_token"], 3), number(every["claims_per_round"], 1), _ratio(every), _ratio(varied),
    )  # fmt: skip


def _ratio(record: Record | None) -> str:
    known = None if record is None else record["ratio_to_transformers"]
    return interval(None if known is None else Interval(**known))


def drawn(found: Sequence[Record], made: Sequence[Prediction]) -> list[Method]:
    """The drafting methods of a run as the picture takes them."""
    promised = {one.method: one.predicted for one in made if one.texts == EVERY}
    domain = _widest(found)
    return [
        Method(
            one["method"], one["tried_by_depth"], one["accepted_by_depth"], one["claims_per_round"],
            one["ratio_to_plain"]["value"], promised.get(one["method"]),
        )
        for one in found
        if one["domain"] == domain and one["texts"] == EVERY and one["tried_by_depth"]
    ]  # fmt: skip
