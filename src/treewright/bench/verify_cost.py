"""`bench verify-cost`: what a round over n claims costs beside a round over one, and which tree size pays.

A round is what the engine asks of a session: score the claims, append, commit a short path and a bonus token. It is timed
eager and compiled, beside a bare cached forward of transformers over as many tokens. With an acceptance curve MAT(n) the best
tree is the one with the largest MAT(n) * cost(1) / cost(n).
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from treewright.api import Loaded, load
from treewright.bench.arguments import Parser, add_common, listed, parse, positive
from treewright.bench.costs import SHAPES, Bare, Lane, Round, Session, measure
from treewright.bench.machine import machine, model_record, versions
from treewright.bench.nodes import best_nodes, gain
from treewright.bench.report import Write, markdown, number, record_writer
from treewright.core.errors import ContextError, InputError, choices

CLAIMS = (1, 2, 4, 8, 16, 24, 32, 48, 64, 96)
MODELS = ("default", "random:0.1b", "random:0.9b")
QUICK = {"models": ("default",), "claims": (1, 8, 32), "repeats": 3, "batches": (1,), "dtypes": ("float32", "bfloat16")}
FULL = {"models": MODELS, "claims": CLAIMS, "repeats": 7, "batches": (1, 8), "dtypes": ("float32", "bfloat16")}
BARE = "transformers forward"

Curve = dict[int, float]
Rounds = Mapping[str, Mapping[int, Round]]


def arguments(argv: list[str]) -> argparse.Namespace:
    """The options of a run. Raises InputError."""
    parser = Parser("verify-cost", "Time of a round over n claims, commit included, beside a bare transformers forward.")
    add_common(parser)
    _add_options(parser)
    args = parse(parser, argv)
    for name, value in (QUICK if args.quick else FULL).items():
        if getattr(args, name) is None:
            setattr(args, name, value)
    args.claims = tuple(sorted({1, *args.claims}))
    for shape in args.shapes:
        if shape not in SHAPES:
            raise InputError(f"unknown shape '{shape}'; {choices(shape, SHAPES)}")
    return args


# fmt: off
def _add_options(parser: Parser) -> None:
    add = parser.add_argument
    add("--models", "--model", type=listed(str), default=None, help="default,random:0.1b,random:0.9b if left out")
    add("--dtypes", type=listed(str), default=None, help="float32,bfloat16 if left out")
    add("--batches", type=listed(positive), default=None, help="1,8 if left out")
    add("--claims", type=listed(positive), default=None, help="1,2,4,8,16,24,32,48,64,96 if left out")
    add("--shapes", type=listed(str), default=("tree", "chain"), help="tree,chain if left out")
    add("--context", type=positive, default=128, help="tokens in the text when the timing begins; 128 if left out")
    add("--compile", action="store_true", help="time the compiled step too")
    add("--compile-up-to", type=float, default=3e8, metavar="PARAMETERS", help="larger models are not compiled: each compiled "
        "shape holds a packed copy of the weights; 3e8 if left out")
    add("--repeats", type=positive, default=None, help="passes of a burst of rounds each; the median is taken; 7 if left out")
    add("--budget", type=float, default=120.0, metavar="SECONDS", help="begin no further pass of a configuration after so long "
        "(two are made); 120 if left out")
    add("--mat", type=_curve, default=None, metavar="FILE|N=MAT,...", help="acceptance curve: tokens per call by number of "
        "nodes, or the JSON of a speed run that holds some")
# fmt: on


def _curve(text: str) -> Curve:
    """Reads "7=1.9,15=2.2", or the JSON of a speed run. Tokens per call of Token Recycling at temperature 0 and batch 1."""
    if "=" in text:
        try:
            return {int(nodes): float(mat) for nodes, _, mat in (part.partition("=") for part in text.split(","))}
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"{text!r} is not N=MAT,... ({error})") from error
    path = Path(text)
    if not path.is_file():
        raise argparse.ArgumentTypeError(f"{text!r} is neither N=MAT,... nor a file")
    return read_curve(path)


def read_curve(path: Path) -> Curve:
    """The acceptance curve in the JSON of a speed run: the tree sizes it raced if they are two or more, else those that
    `--nodes auto` tried on the warm-up prompts. Raises InputError where there is neither."""
    raced: Curve = {}
    tried: Curve = {}
    for record in map(json.loads, filter(None, path.read_text(encoding="utf-8").splitlines())):
        choice = record.get("node_choice") or {"mat": {}}
        tried |= {int(nodes): float(mat) for nodes, mat in choice["mat"].items()}
        fits = record.get("recipe") == "token_recycling" and record["temperature"] == 0 and record["batch"] == 1
        nodes = next((value for key, value in record.get("options", {}).items() if key.split(".")[-1] == "nodes"), None)
        # The records of a setting end with all domains together, texts of low repetition last; so the last one wins.
        if fits and nodes is not None:
            raced[int(nodes)] = float(record["tokens_per_call"])
    if len(raced) < 2 and not tried:
        raise InputError(
            f"{path} does not hold token_recycling with two numbers of nodes at temperature 0 and batch 1; run bench speed "
            "with --nodes auto, or --methods token_recycling:nodes=7,token_recycling:nodes=15,..."
        )
    return raced if len(raced) > 1 else tried


def run(argv: list[str]) -> int:
    """Measures and prints; returns 0."""
    args = arguments(argv)
    with record_writer(args.json) as write:
        for name in args.models:
            for dtype in args.dtypes:
                eager = load(name, dtype=dtype, device=args.device)
                _check_context(eager, args)
                for rows in args.batches:
                    _configuration(args, eager, rows, write)
                    _release()
                del eager
                _release()
    return 0


def _check_context(loaded: Loaded, args: argparse.Namespace) -> None:
    most = loaded.protocol.capabilities.max_length
    needed = args.context + max(args.claims) + 128
    if most is not None and needed > most:
        raise ContextError(
            f"--context {args.context} with {max(args.claims)} claims needs {needed} positions; model '{loaded.name}' has {most}"
        )


def _release() -> None:
    """Drops compiled steps, which hold copies of the weights."""
    torch._dynamo.reset()
    gc.collect()


def _configuration(args: argparse.Namespace, eager: Loaded, rows: int, write: Write) -> None:
    context = {
        "task": "verify-cost", "machine": machine(eager.model.device), "versions": versions(), **model_record(eager, False),
        "batch": rows, "context": args.context, "repeats": args.repeats,
    }  # fmt: skip
    wanted = args.compile and context["parameters"] <= args.compile_up_to
    kinds = {False: eager}
    if wanted:
        # The same weights: the compiled step only adds graphs, so both are timed in turn in one process.
        kinds[True] = load(eager.model, compile=True)
    title = f"{context['model']} ({context['parameters'] / 1e6:.0f} M), {context['dtype']}, batch {rows}"
    if args.compile and not wanted:
        print(f"bench verify-cost: {title}: larger than --compile-up-to, timed eager only", file=sys.stderr)
    print(f"bench verify-cost: {title}: measuring", file=sys.stderr, flush=True)
    lanes: dict[str, Lane] = {BARE: Bare(eager, rows, args.context)}
    for compiled, loaded in kinds.items():
        for shape in args.shapes:
            lanes[lane_name(shape, compiled)] = Session(loaded, rows, args.context, shape)
    found = measure(lanes, args.claims, args.repeats, args.budget)
    written = [context | record for record in records(found, args.shapes, tuple(kinds), args.mat)]
    for record in written:
        write(record)
    print(f"\n## {title}, text of {args.context} tokens\n\n{table(written)}\n{_best(written)}", flush=True)


def lane_name(shape: str, compiled: bool) -> str:
    """What a lane of our session is called."""
    return f"{shape}, {'compiled' if compiled else 'eager'}"


def records(found: Rounds, shapes: Sequence[str], kinds: Sequence[bool], mat: Curve | None) -> Iterator[dict[str, Any]]:
    """A record for each shape, eager or compiled, and number of claims; all times in milliseconds."""
    bare = found[BARE]
    for compiled in kinds:
        for shape in shapes:
            ours, eager = found[lane_name(shape, compiled)], found.get(lane_name(shape, False))
            costs = {size: round.seconds for size, round in ours.items()}
            usable = {nodes: value for nodes, value in (mat or {}).items() if nodes + 1 <= max(costs) and shape == "tree"}
            best = best_nodes(costs, usable) if usable else None
            for size, round in ours.items():
                yield {
                    "compiled": compiled, "shape": shape, "claims": size, "ms": 1000 * round.seconds,
                    "forward_ms": 1000 * round.forward, "outside_ms": 1000 * (round.seconds - round.forward),
                    "ratio_to_one_claim": round.seconds / ours[1].seconds, "transformers_ms": 1000 * bare[size].seconds,
                    "ratio_to_transformers": round.seconds / bare[size].seconds,
                    "eager_over_compiled": eager[size].seconds / round.seconds if compiled and eager else None,
                    "mat": usable or None, "best_nodes": best,
                    "best_gain": None if best is None else gain(costs, usable, best),
                }  # fmt: skip


HEADERS = (
    "step", "shape", "claims", "ms", "forward ms", "outside ms", "x one claim", "transformers ms", "x transformers",
    "eager / compiled",
)  # fmt: skip
FIGURES = (
    "ms", "forward_ms", "outside_ms", "ratio_to_one_claim", "transformers_ms", "ratio_to_transformers", "eager_over_compiled",
)  # fmt: skip


def table(found: Sequence[Mapping[str, Any]]) -> str:
    """The records of one configuration as a Markdown table."""
    return markdown(HEADERS, [_row(record) for record in found], words=3)


def _row(record: Mapping[str, Any]) -> tuple[str, ...]:
    step = "compiled" if record["compiled"] else "eager"
    return (step, record["shape"], str(record["claims"]), *(number(record[name]) for name in FIGURES))


def _best(found: Sequence[Mapping[str, Any]]) -> str:
    lines = {
        f"Best tree for the given acceptance, {record['shape']}, {'compiled' if record['compiled'] else 'eager'}: "
        f"{record['best_nodes']} nodes, at most {record['best_gain']:.2f} times plain decoding.": None
        for record in found
        if record["best_nodes"] is not None
    }
    return "\n".join(lines) + "\n" if lines else ""
