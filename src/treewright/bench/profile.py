"""`bench profile`: what `sequoia` wants to know of a target and its draft model on this machine, as the JSON file it reads.

Acceptance by rank is counted as the paper calibrates: a round draws `--width` children of the frontier without replacement,
verification tries them in that order, and P[b] is the share of rounds that took the b-th (Chen et al. 2024,
https://arxiv.org/abs/2402.12374). Rounds are those of `rsd_c` on the built-in prompts, one prompt at a time, at one temperature;
P of another temperature is another. Seconds are medians of whole rounds of a session: of the target by claims, of the draft model
over LEVEL claims.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from treewright.api import CPU_COLUMNS, Loaded, generate, load
from treewright.bench.arguments import Parser, add_common, listed, pair, parse, positive, temperature, token_ids
from treewright.bench.costs import claim_costs
from treewright.bench.machine import machine, model_record, versions
from treewright.bench.prompts import BUILT_IN, prompt_hash
from treewright.bench.report import markdown, record_writer
from treewright.core.errors import InputError
from treewright.core.trace import Step

METHOD = "rsd_c"
"""Draws children without replacement and tries them in the order they were drawn."""
CLAIMS = (1, 2, 4, 8, 16, 24, 32, 48, 64)
LEVEL = 8
"""Claims of a draft call that is timed: those of a level, where 64 claims are nine levels deep."""
DRAFT = "draft"
EXAMPLE = "treewright generate ... --method sequoia --set profile="


def arguments(argv: list[str]) -> argparse.Namespace:
    """The options of a run. Raises InputError."""
    parser = Parser("profile", "Acceptance by rank and seconds of calls, written as the profile that `sequoia` reads.")
    add_common(parser)
    add = parser.add_argument
    add("--model", default="default", help="default if left out")
    add("--with", dest="role", type=pair, required=True, metavar="draft=MODEL", help="the draft model")
    add("--output", type=Path, required=True, metavar="FILE", help="where the profile goes")
    add("--dtype", default=None, help="of both models; the checkpoints' own if left out")
    add("--width", type=positive, default=32, help="children of a claim that are told apart; 32 if left out")
    add("--claims", type=listed(positive), default=CLAIMS, help="sizes of a call that are timed; 1 to 64 if left out")
    add("--batch", type=positive, default=1, help="rows of a call that is timed; 1 if left out")
    add("--temperature", type=temperature, default=0.0, help="of the texts that will be decoded; 0 if left out")
    add("--max-new-tokens", type=positive, default=None, help="of each built-in prompt; 64 if left out")
    add("--repeats", type=positive, default=None, help="passes of a burst of rounds each; the median is taken; 5 if left out")
    args = parse(parser, argv)
    args.max_new_tokens = args.max_new_tokens or (8 if args.quick else 64)
    args.repeats = args.repeats or (1 if args.quick else 5)
    if args.role[0] != DRAFT:
        raise InputError(f"--with {args.role[0]}=...: a profile is of a target and its draft model; give --with draft=MODEL")
    if args.output.is_dir() or not args.output.absolute().parent.is_dir():
        raise InputError(f"--output {args.output}: not a file in a folder that exists; give another FILE, or create its folder")
    return args


def run(argv: list[str]) -> int:
    """Measures, prints and writes the profile; returns 0. Cost: a call of each model for about each token of 24 short texts, and
    the rounds that are timed."""
    args = arguments(argv)
    target, draft = (load(name, dtype=args.dtype, device=args.device) for name in (args.model, args.role[1]))
    if target.model.device.type == "cpu" and args.width >= CPU_COLUMNS:
        raise InputError(
            f"--width is {args.width}; allowed on a CPU: 1 to {CPU_COLUMNS - 1}, for a round has {CPU_COLUMNS} columns"
        )
    print(f"bench profile: {target.name} with {draft.name}: counting", file=sys.stderr, flush=True)
    acceptance = measure_acceptance(target, draft, args.width, args.temperature, args.max_new_tokens)
    print("bench profile: timing", file=sys.stderr, flush=True)
    costs = claim_costs(target, args.batch, sorted({1, *args.claims}), repeats=args.repeats)
    seconds = claim_costs(draft, args.batch, [LEVEL], repeats=args.repeats)[LEVEL]
    profile = {"acceptance": acceptance, "draft_seconds": seconds, "target_seconds": {str(n): cost for n, cost in costs.items()}}
    args.output.write_text(json.dumps(profile, indent=1) + "\n", encoding="utf-8")
    with record_writer(args.json) as write:
        write({
            "task": "profile", "machine": machine(target.model.device), "versions": versions(), **model_record(target, False),
            "draft": model_record(draft, False), "temperature": args.temperature, "batch": args.batch,
            "prompt_hash": prompt_hash(BUILT_IN), "max_new_tokens": args.max_new_tokens, "repeats": args.repeats,
            "profile": profile,
        })  # fmt: skip
    print(f"{table(profile)}\n\nWritten: {args.output}; use it with {EXAMPLE}{args.output}")
    return 0


def measure_acceptance(target: Loaded, draft: Loaded, width: int, heat: float, new_tokens: int) -> list[float]:
    """P [width] over the built-in prompts. Raises InputError where no round drew children and for a model without a tokenizer."""
    steps: list[Step] = []
    for number, prompt in enumerate(BUILT_IN):
        result: Any = generate(
            target, token_ids(target, prompt.text), METHOD, {"branching": [width]}, {DRAFT: draft}, temperature=heat,
            max_new_tokens=new_tokens, seed=number, ignore_eos=True,
        )  # fmt: skip
        steps += result.trace.steps
    return shares(steps, width)


def shares(steps: Iterable[Step], width: int) -> list[float]:
    """Of the rounds that drew children of the frontier, the share that took the b-th of them. Raises InputError without any."""
    # A tree of one level has its children in the order of its columns; the last token of a text has no drafts.
    tried = [step for step in steps if len(step.token) > 1]
    if not tried:
        raise InputError("no round drew children of the frontier; give --max-new-tokens 2 or more")
    taken = [step.accepted[0] for step in tried if step.accepted]
    return [taken.count(rank) / len(tried) for rank in range(1, width + 1)]


def table(profile: dict[str, Any]) -> str:
    """Where the chances end and what the calls cost, in Markdown."""
    vector = profile["acceptance"]
    lines = [
        ("P[1]", f"{vector[0]:.3f}"), (f"P[1..{len(vector)}] in all", f"{sum(vector):.3f}"),
        ("ms of a draft call", f"{1000 * profile['draft_seconds']:.2f}"),
        *((f"ms of {size} claims", f"{1000 * seconds:.2f}") for size, seconds in profile["target_seconds"].items()),
    ]  # fmt: skip
    return markdown(("measured", "value"), lines)
