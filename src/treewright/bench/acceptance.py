"""`bench acceptance`: how many tokens a call drafters bring at temperature 0, on texts that no training saw. Counts only.

Beginnings are the built-in prompts and, with `--tokens`, held-out documents of a training run. Every drafter gets the same
number of nodes beside the frontier: trained heads, with `--untrained` the heads they began as, Token Recycling, prompt lookup
with a chain of that length, and with `--tokens` a bigram table counted on the training tokens. Texts that repeat 0.3 of their
4-grams or more flatter every drafter, so the others stand in a column of their own.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from treewright.api import Loaded, load, prepare
from treewright.bench.arguments import Parser, add_common, listed, parse, positive, token_ids
from treewright.bench.bigram import bigram_parts, count_bigrams, read_streams
from treewright.bench.machine import model_record, versions
from treewright.bench.prompts import BUILT_IN, prompt_hash
from treewright.bench.report import Write, markdown, record_writer
from treewright.bench.statistics import repetition
from treewright.core.roles import Parts

LOOPS = 0.3
BEGINNING = 48
PLAIN = "plain"


@dataclass(frozen=True, slots=True)
class Beginning:
    """Token ids to continue, and the set they are from."""

    kind: str
    ids: list[int]


@dataclass(frozen=True, slots=True)
class Drafter:
    """What is counted: a method with options, or plain decoding with parts of the benchmark's own."""

    name: str
    method: str
    options: dict[str, Any]
    extra: Callable[[], Parts] | None = None


@dataclass(frozen=True, slots=True)
class Counted:
    """One text: its new tokens, the rounds they took, the share of 4-grams that repeat."""

    kind: str
    tokens: list[int]
    rounds: int

    @property
    def loops(self) -> bool:
        return repetition(self.tokens) >= LOOPS


def arguments(argv: list[str]) -> argparse.Namespace:
    """The options of a run. Raises InputError."""
    parser = Parser("acceptance", "Tokens per call of drafters at temperature 0, on texts that no training saw.")
    add_common(parser)
    add = parser.add_argument
    add("--model", default="default", help="default if left out")
    add("--heads", default="default-medusa", help="trained Medusa heads: a bundled name, a folder or a file")
    add("--untrained", default=None, metavar="DIR", help="heads before training (`treewright train medusa --tokens 0`)")
    add(
        "--tokens",
        type=Path,
        default=None,
        metavar="DIR",
        help="the tokens folder of a training run: held-out beginnings, bigrams",
    )
    add("--held-out", type=positive, default=24, metavar="N", help="held-out beginnings; 24 if left out")
    add("--nodes", type=listed(positive), default=None, help="claims beside the frontier; 15,63 if left out")
    add("--max-new-tokens", type=positive, default=None, help="64 if left out")
    args = parse(parser, argv)
    args.nodes = args.nodes or ((7,) if args.quick else (15, 63))
    args.max_new_tokens = args.max_new_tokens or (16 if args.quick else 64)
    return args


def run(argv: list[str]) -> int:
    """Counts and prints a table; returns 0. Cost: a few thousand target calls for each drafter and tree size."""
    args = arguments(argv)
    loaded = load(args.model, device=args.device)
    beginnings = read_beginnings(loaded, args.tokens, args.held_out)
    table = None if args.tokens is None else count_bigrams(read_streams(args.tokens, "train"), len(loaded.tokenizer))  # type: ignore[arg-type]
    rows = []
    with record_writer(args.json) as write:
        for nodes in args.nodes:
            for drafter in drafters(nodes, args.heads, args.untrained, table):
                found = count(loaded, drafter, beginnings, args.max_new_tokens)
                rows.append([drafter.name, str(nodes), *figures(found)])
                print(f"{drafter.name} with {nodes} nodes: {rows[-1][2]} tokens a call", file=sys.stderr)
                _record(write, loaded, drafter, nodes, found)
    kinds = list(dict.fromkeys(one.kind for one in beginnings))
    print(markdown(["drafter", "nodes", "all", f"repeat < {LOOPS}", *kinds], rows))
    return 0


def read_beginnings(loaded: Loaded, tokens: Path | None, held_out: int) -> list[Beginning]:
    """The built-in prompts, and `held_out` windows spread evenly over the held-out streams of a tokens folder."""
    found = [Beginning(prompt.domain, token_ids(loaded, prompt.text)) for prompt in BUILT_IN]
    if tokens is None:
        return found
    long = [stream for stream in read_streams(tokens, "held_out").values() if len(stream) >= BEGINNING]
    for number in range(held_out):
        stream = long[number % len(long)]
        windows = len(stream) // BEGINNING
        start = BEGINNING * (number // len(long) * 7 % windows)
        found.append(Beginning("held-out", np.asarray(stream[start : start + BEGINNING], np.int64).tolist()))
    return found


def drafters(nodes: int, heads: str, untrained: str | None, table: tuple[np.ndarray, np.ndarray] | None) -> list[Drafter]:
    """Everything that is counted at one tree size."""
    found = [
        Drafter("prompt_lookup", "prompt_lookup", {"tokens": nodes}),
        Drafter("token_recycling", "token_recycling", {"nodes": nodes}),
    ]
    if table is not None:
        found.append(Drafter("bigram table", PLAIN, {}, lambda: bigram_parts(*table, nodes)))
    if untrained is not None:
        found.append(Drafter("medusa, untrained", "medusa", {"heads": untrained, "nodes": nodes}))
    return [*found, Drafter("medusa", "medusa", {"heads": heads, "nodes": nodes})]


def count(loaded: Loaded, drafter: Drafter, beginnings: Sequence[Beginning], new_tokens: int) -> list[Counted]:
    """Decodes every beginning alone, one after another. What a method learns on the way it may keep."""
    own, found = dataclasses.replace(loaded, memories={}), []
    for beginning in beginnings:
        settings = {"max_new_tokens": new_tokens, "ignore_eos": True}
        job = prepare(own, [beginning.ids], drafter.method, drafter.options, None, settings)
        engine = job.engine(extra=None if drafter.extra is None else drafter.extra())
        for _ in engine.run():
            pass
        trace = engine.traces[0, 0]
        found.append(Counted(beginning.kind, list(engine.finished[0, 0].tokens), len(trace.steps)))
    return found


def tokens_per_call(found: Sequence[Counted]) -> float | None:
    """Tokens of all texts over rounds of all texts; None without a text."""
    return sum(len(one.tokens) for one in found) / sum(one.rounds for one in found) if found else None


def figures(found: Sequence[Counted]) -> list[str]:
    """Tokens a call of all texts, of those that do not loop, and of every kind of beginning."""
    kinds = dict.fromkeys(one.kind for one in found)
    parts = [list(found), [one for one in found if not one.loops]]
    parts += [[one for one in found if one.kind == kind] for kind in kinds]
    values = [tokens_per_call(part) for part in parts]
    return ["-" if value is None else f"{value:.2f}" for value in values]


def _record(write: Write, loaded: Loaded, drafter: Drafter, nodes: int, found: Sequence[Counted]) -> None:
    kept = [one for one in found if not one.loops]
    write({
        "task": "acceptance", "versions": versions(), "model": model_record(loaded, False), "prompt_hash": prompt_hash(BUILT_IN),
        "drafter": drafter.name, "options": drafter.options, "nodes": nodes, "texts": len(found),
        "texts_without_loops": len(kept),
        "tokens_per_call": tokens_per_call(found), "tokens_per_call_without_loops": tokens_per_call(kept),
        "by_text": [{"kind": one.kind, "tokens": len(one.tokens), "rounds": one.rounds} for one in found],
    })  # fmt: skip
