"""`bench draft`: which draft model and chain length a curve of costs speaks for, and what acceptance a wanted gain takes.

The cost model is that of `draft_choice`. A draft's latency and acceptance are given: `bench profile` measures both, as
"draft_seconds" and the first entry of "acceptance". Runs no model.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from math import inf
from pathlib import Path
from typing import Any

from treewright.bench.arguments import Parser, listed, parse_files, positive
from treewright.bench.draft_choice import Choice, Costs, Draft, best, required_alpha
from treewright.bench.predict import curves
from treewright.bench.records import CostRecord, read_records
from treewright.bench.report import markdown, number, record_writer
from treewright.core.errors import InputError


def arguments(argv: list[str]) -> argparse.Namespace:
    """The options of a run. Raises InputError."""
    parser = Parser("draft", "The best draft model and chain length by a curve of costs. Runs no model.")
    _add_options(parser)
    args = parse_files(parser, argv)
    twice = next((name for name, count in Counter(one.name for one in args.drafts).items() if count > 1), None)
    if twice is not None:
        raise InputError(f"--draft names '{twice}' twice; give each draft a name of its own")
    return args


# fmt: off
def _add_options(parser: Parser) -> None:
    add = parser.add_argument
    add("--cost", type=Path, required=True, metavar="FILE", help="records of `bench verify-cost` on the target")
    add("--draft", dest="drafts", type=draft, action="append", required=True, metavar="NAME=MS:ALPHA",
        help="a draft model: milliseconds of one of its calls at this batch, and the chance that one of its tokens is accepted; "
        "may be repeated. `bench profile` measures both")
    add("--gain", type=_gain, default=None, help="also tell the acceptance with which a draft is so many times as fast as plain")
    add("--gammas", type=listed(positive), default=None, metavar="N,N,...", help="chain lengths; all that the costs reach if "
        "left out. 0, plain decoding, is always among them")
    add("--batch", type=positive, default=1, help="rows; 1 if left out")
    add("--json", type=Path, default=None, metavar="FILE", help="write one JSON record a line to FILE")
# fmt: on


def draft(text: str) -> Draft:
    """Reads NAME=MS:ALPHA."""
    name, _, figures = text.rpartition("=")
    milliseconds, _, alpha = figures.partition(":")
    try:
        if not name:
            raise ValueError("no name")
        return Draft(name, float(milliseconds) / 1000, float(alpha))
    except (ValueError, InputError):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not NAME=MS:ALPHA with MS a number >= 0 and ALPHA from 0 to 1, such as small=2.5:0.7"
        ) from None


def _gain(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number > 0")
    return value


def run(argv: list[str]) -> int:
    """Prints the best chain of each draft for every curve in the file; returns 0."""
    args = arguments(argv)
    places = curves(read_records(args.cost, "verify-cost", CostRecord.of), args.batch)
    with record_writer(args.json) as write:
        for place, costs in places.items():
            gammas = range(max(costs)) if args.gammas is None else sorted({0, *args.gammas})
            choices = [best([one], costs, gammas) for one in args.drafts]
            needed = [_needed(one, args.gain, costs, gammas) for one in args.drafts]
            for choice, alpha in zip(choices, needed, strict=True):
                write({"place": place, "batch": args.batch, **_record(choice), "gain": args.gain, "required_alpha": alpha})
            print(f"\n## {place}, batch {args.batch}\n\n{table(choices, args.gain, needed)}\n\n{_verdict(choices)}\n")
    return 0


def _needed(one: Draft, gain: float | None, costs: Costs, gammas: Sequence[int]) -> float | None:
    """The acceptance that the gain takes; None where none is asked for or none is enough."""
    if gain is None or best([Draft(one.name, one.seconds, 1.0)], costs, gammas).ratio < gain:
        return None
    return required_alpha(gain, one.seconds, costs, gammas)


def _record(choice: Choice) -> dict[str, Any]:
    return {
        "task": "draft", "draft": choice.draft.name, "draft_ms": 1000 * choice.draft.seconds, "alpha": choice.draft.alpha,
        "gamma": choice.gamma, "tokens_per_round": choice.tokens_per_round, "tokens_per_second": choice.tokens_per_second,
        "ratio_to_plain": choice.ratio,
    }  # fmt: skip


def table(choices: Sequence[Choice], gain: float | None, needed: Sequence[float | None]) -> str:
    """A line for each draft, in Markdown. With a gain also the acceptance that it takes."""
    headers = ["draft", "ms", "alpha", "best gamma", "tokens/round", "tokens/s", "x plain"]
    lines = [
        [choice.draft.name, number(1000 * choice.draft.seconds), number(choice.draft.alpha), str(choice.gamma),
         number(choice.tokens_per_round), number(choice.tokens_per_second, 1), number(choice.ratio)]
        for choice in choices
    ]  # fmt: skip
    if gain is not None:
        headers.append(f"alpha for x {gain:g}")
        lines = [[*line, "out of reach" if alpha is None else number(alpha)] for line, alpha in zip(lines, needed, strict=True)]
    return markdown(headers, lines)


def _verdict(choices: Sequence[Choice]) -> str:
    first = max(choices, key=lambda choice: choice.ratio)
    if first.gamma == 0:
        return "No draft pays: plain decoding is the fastest."
    return f"Take {first.draft.name} with {first.gamma} drafts a round: {first.ratio:.2f} times plain decoding."
