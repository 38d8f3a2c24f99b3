"""`bench stream`: what adapts, over a stream whose kind of text changes, beside what does not.

Prompts of every domain and of noise follow one another, each kind in one or more visits whose order is drawn by `--seed`. Every
method decodes the whole stream in its own order of prompts and keeps what it learns from one to the next, from an empty memory at
the begin of each repeat; the weights are shared. The methods take turns prompt by prompt (the race of `bench speed`), so that a
drift of the machine meets all alike. Noise is adversarial: prompts of tokens drawn uniformly from the vocabulary, continued at a
high temperature whatever the run's is, so that hardly a draft lands. Told are the figures of each kind of text and of the whole,
beside plain decoding and beside the fixed method that was fastest over the whole stream, which nobody could know before.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from random import Random

from treewright.bench import speed
from treewright.bench.arguments import Parser, add_common, listed, positive, temperature
from treewright.bench.contestants import ALL, PLAIN, drafting
from treewright.bench.race import Unit, make_units
from treewright.bench.report import record_writer
from treewright.bench.speed_report import EVERY, all_equal, records
from treewright.bench.stream_report import beside_best, report, verdicts
from treewright.core.errors import InputError, choices
from treewright.core.recipe import read_method
from treewright.core.registry import called

NOISE = "noise"
NOISE_TOKENS = 32
"""The kind of text that no drafter can know, and the tokens of its prompts."""
ADAPTIVE = "auto"
METHODS = (ADAPTIVE, "token_recycling:nodes=15", "suffix", "prompt_lookup")


def arguments(argv: list[str]) -> argparse.Namespace:
    """The options of a run: those of `bench speed` without peers, and the stream's. Raises InputError."""
    parser = Parser("stream", "A method that adapts, over a stream whose kind of text changes, beside methods that do not.")
    add_common(parser)
    speed.add_contestants(parser)
    speed.add_race(parser)
    parser.set_defaults(methods=METHODS, peers=("none",), exports=[])
    add = parser.add_argument
    add("--adaptive", type=listed(str), default=None, metavar="M,...", help="the methods of the run that adapt; the others "
        "count as fixed; auto, with any options, if left out")  # fmt: skip
    add("--visits", type=positive, default=2, help="how often each kind of text comes in the stream; 2 if left out")
    add("--noise-temperature", type=temperature, default=2.0, help="temperature of the segment of noise; 2 if left out")
    args = speed.read(parser, argv)
    if args.noise_temperature == 0:
        raise InputError("--noise-temperature 0 makes no noise, since greedy text repeats itself; give a number above 0")
    if args.adaptive is None:
        named = (ADAPTIVE,) if args.methods == (ALL,) else args.methods
        args.adaptive = tuple(name for name in named if called(read_method(name)[0]) == ADAPTIVE)
        if not args.adaptive:
            raise InputError(
                f"--methods {','.join(args.methods)} has no '{ADAPTIVE}', which --adaptive stands for where it is left out; name "
                f"with --adaptive which of these adapt, or add {ADAPTIVE} to --methods"
            )
    check_adaptive(args.adaptive, drafting([role for role, _ in args.roles]) if args.methods == (ALL,) else args.methods)
    return args


def check_adaptive(adaptive: Sequence[str], methods: Sequence[str]) -> None:
    """Raises InputError where what adapts is no method of the run, or plain decoding, beside which all others stand."""
    for name in adaptive:
        if name == PLAIN or name not in methods:
            why = "adapts to nothing; leave it out" if name == PLAIN else "is no method of this run; add it to --methods"
            raise InputError(
                f"--adaptive {name} {why}, or name others that adapt; "
                f"{choices(name, [method for method in methods if method != PLAIN])}"
            )


def run(argv: list[str]) -> int:
    """Measures and prints; returns 0, or 1 if a lossless method's greedy text leaves plain decoding's without excuse."""
    args = arguments(argv)
    bench, equal = speed.prepare(args, "stream"), True
    check_adaptive(args.adaptive, bench.methods)
    bench.context |= {"visits": args.visits, "noise_temperature": args.noise_temperature}
    reference = bench.reference() if 0 in args.temperatures else []

    def units_of(rows: int) -> list[Unit]:
        texts = make_units(bench.prompts, bench.ids, [0.0] * len(bench.ids), rows)
        vocabulary = bench.loaded.protocol.capabilities.vocabulary
        noise = noise_units(vocabulary, len(bench.ids), args.prompts // rows, rows, args.noise_temperature, args.seed)
        return in_stream([*texts, *noise], args.visits, args.seed)

    with record_writer(args.json) as write:
        for title, field, context in bench.fields(units_of, reference):
            found = [record for record in records(field, context) if record["texts"] == EVERY]
            found = beside_best(found, args.adaptive)
            judged = verdicts(found)
            for record in [*found, *(context | verdict.to_json() for verdict in judged)]:
                write(record)
            print(f"\n## {title}\n\n{report(found, judged)}\n", flush=True)
            equal = equal and all_equal(found)
    return 0 if equal else 1


def noise_units(vocabulary: int, first: int, count: int, rows: int, heat: float, seed: int) -> list[Unit]:
    """Units of prompts whose tokens are uniform over the vocabulary; `first` is the number of the first prompt."""
    random, units = Random(f"noise {seed}"), []
    for start in range(first, first + count * rows, rows):
        prompts = tuple(tuple(random.randrange(vocabulary) for _ in range(NOISE_TOKENS)) for _ in range(rows))
        units.append(Unit(NOISE, tuple(range(start, start + rows)), prompts, heat))
    return units


def in_stream(units: Sequence[Unit], visits: int, seed: int) -> list[Unit]:
    """The units in the order of the stream: those of a domain divided over `visits` visits (fewer where it has fewer units), and
    in each round of visits the domains in an order of its own."""
    random, ordered = Random(f"order {seed}"), list[Unit]()
    domains = list(dict.fromkeys(unit.domain for unit in units))
    for visit in range(visits):
        random.shuffle(domains)
        for domain in domains:
            own = [unit for unit in units if unit.domain == domain]
            parts = min(visits, len(own))
            if visit < parts:
                ordered += own[len(own) * visit // parts : len(own) * (visit + 1) // parts]
    return ordered
