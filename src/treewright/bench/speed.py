"""`bench speed`: our methods, our plain decoding and transformers, in one run over the same prompts.

Counts that do not depend on the machine stand first: model calls per token and tokens per call. Ratios are of tokens per
second, with bootstrap intervals over the units. Whether greedy tokens are those of plain decoding is printed beside them.
Figures over units all of whose texts repeat less than 0.3 of their 4-grams stand in rows of their own, because a text that
loops flatters every n-gram drafter; which units these are is decided by the text of our plain decoding.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from treewright.api import generate, load
from treewright.bench.arguments import Parser, add_common, assignment, listed, pair, parse, positive, temperature, token_ids
from treewright.bench.contestants import PLAIN, Contestant, Setting, check_methods, our_contestants, peer_contestants
from treewright.bench.equality import Referee
from treewright.bench.machine import machine, model_record, versions
from treewright.bench.nodes import NodeChoice, measure_nodes
from treewright.bench.prompt_sets import default_domains, read_prompts
from treewright.bench.prompts import Prompt, prompt_hash
from treewright.bench.race import Unit, make_units, race
from treewright.bench.report import Write, record_writer
from treewright.bench.speed_report import Field, all_equal, records, report
from treewright.bench.statistics import repetition
from treewright.core.errors import ContextError, InputError

QUICK = {"prompts": 2, "max_new_tokens": 32, "repeats": 1, "temperatures": (0.0,), "batches": (1,)}
FULL = {"prompts": 8, "max_new_tokens": 128, "repeats": 3, "temperatures": (0.0, 1.0), "batches": (1, 8)}


def arguments(argv: list[str]) -> argparse.Namespace:
    """The options of a run. Raises InputError."""
    return read(
        make_parser("speed", "Speed of decoding methods beside plain decoding and transformers, on the same prompts."), argv
    )


def make_parser(task: str, description: str) -> Parser:
    """The options of a race."""
    parser = Parser(task, description)
    add_common(parser)
    add_contestants(parser)
    add_peers(parser)
    add_race(parser)
    return parser


def read(parser: Parser, argv: list[str], **defaults: Any) -> argparse.Namespace:
    """What was given, and for the rest `defaults`, then those of a quick or a full run. Raises InputError."""
    args = parse(parser, argv)
    check_methods(args.methods, args.settings)
    for name, value in ((QUICK if args.quick else FULL) | defaults).items():
        if getattr(args, name) is None:
            setattr(args, name, value)
    if max(args.batches) > args.prompts:
        raise InputError(f"--batches {max(args.batches)} needs as many prompts in each domain, but --prompts is {args.prompts}")
    return args


# fmt: off
def add_contestants(parser: Parser) -> None:
    """Models and methods of ours."""
    add = parser.add_argument
    add("--model", default="default", help="default if left out")
    add("--with", dest="roles", action="append", type=pair, default=[], metavar="ROLE=MODEL",
        help="a model for a role; draft=NAME also makes transformers' assisted decoding run")
    add("--dtype", default=None, help="the checkpoint's own if left out")
    add("--compile", action="store_true", help="compile our verify step; transformers stays as it is")
    add("--methods", type=listed(str), default=("all",), metavar="M,M:OPTION=VALUE,...", help="all: every lossless method whose "
        "models are given; plain is always there")
    add("--set", dest="settings", action="append", type=assignment, default=[], metavar="[METHOD.]OPTION=VALUE",
        help="an option of the methods that have it")
    add("--nodes", type=_nodes, default=None, metavar="auto|N", help="tree size where a method has the option 'nodes'; auto "
        "measures costs and acceptance first")


def add_peers(parser: Parser) -> None:
    """Other libraries' decoding."""
    add = parser.add_argument
    add("--peers", type=listed(str), default=("all",), help="transformers, transformers:prompt_lookup, transformers:assisted, "
        "openvino, openvino:prompt_lookup, openvino:assisted, all (that can run) or none")
    add("--export", dest="exports", action="append", type=pair, default=[], metavar="NAME=FOLDER", help="the model's weights as "
        "another runtime reads them: openvino=FOLDER, openvino:draft=FOLDER")


def add_race(parser: Parser) -> None:
    """Prompts and measuring."""
    add = parser.add_argument
    add("--data", type=Path, default=None, metavar="DIR", help="folder with tinystories_sample, humaneval, spider_dev and "
        "spec_bench; the built-in prompts if left out")
    add("--domains", type=listed(str), default=None, help="prose, code, sql, and with --data spec-bench; all if left out")
    add("--prompts", type=positive, default=None, metavar="N", help="prompts of each domain; 8 if left out")
    add("--hash", default=None, help="refuse to run if the prompt set has another hash")
    add("--temperatures", type=listed(temperature), default=None, help="0,1 if left out")
    add("--batches", type=listed(positive), default=None, help="1,8 if left out")
    add("--max-new-tokens", type=positive, default=None, help="128 if left out")
    add("--stop-at-eos", action="store_true", help="let texts end by themselves; by default all rows are of the same length, so "
        "that no row of a batch idles")
    add("--repeats", type=positive, default=None, help="3 if left out; seconds are medians")
    add("--seed", type=int, default=0)
# fmt: on


def _nodes(text: str) -> int | str:
    return text if text == "auto" else positive(text)


def run(argv: list[str]) -> int:
    """Measures and prints; returns 0, or 1 if a lossless method's greedy text leaves plain decoding's without excuse."""
    args = arguments(argv)
    bench = prepare(args)
    with record_writer(args.json) as write:
        equal = bench.run(write)
    return 0 if equal else 1


def prepare(args: argparse.Namespace, task: str = "speed") -> Bench:
    """The run of these options under the name of a task. Raises InputError, and what loading a model raises."""
    prompts = read_prompts(args.data, args.domains or default_domains(args.data), args.prompts)
    found = prompt_hash(prompts)
    if args.hash not in (None, found):
        raise InputError(f"the prompt set has hash {found}, not --hash {args.hash}; figures of different prompts do not compare")
    return Bench(args, prompts, task)


class Bench:
    """One run: models loaded, options checked; `run` measures. ids: the prompts as tokens. methods: ours, by name. context: what
    every record says of the run."""

    def __init__(self, args: argparse.Namespace, prompts: Sequence[Prompt], task: str) -> None:
        self._args, self.prompts = args, prompts
        self.loaded = load(args.model, dtype=args.dtype, device=args.device, compile=args.compile)
        dtype = str(self.loaded.model.dtype).removeprefix("torch.")
        how = {"dtype": dtype, "device": args.device, "compile": args.compile}
        self._models = {role: load(name, **how) for role, name in args.roles}
        self.ids = [token_ids(self.loaded, prompt.text) for prompt in prompts]
        self._check_context()
        exports = {name: Path(folder) for name, folder in args.exports}
        self._peers = peer_contestants(args.peers, self.loaded, self._models, exports)
        ours = self._ours(None)
        self._check_roles(ours)
        self.methods = [contestant.name for contestant in ours]
        self.context = {
            "task": task, "machine": machine(self.loaded.model.device), "versions": versions(),
            **model_record(self.loaded, args.compile), "roles": {role: other.name for role, other in self._models.items()},
            "prompt_set": {"hash": prompt_hash(prompts), "source": "data" if args.data else "built-in", "prompts": len(prompts)},
            "max_new_tokens": args.max_new_tokens, "ignore_eos": not args.stop_at_eos, "seed": args.seed, "repeats": args.repeats,
        }  # fmt: skip

    def _check_roles(self, ours: Sequence[Contestant]) -> None:
        used = {role for contestant in [*ours, *self._peers] for role in contestant.roles}
        unused = sorted(set(self._models) - used)
        if unused:
            raise InputError(
                f"--with {unused[0]}=...: no method or peer of this run uses that role; used: {', '.join(used) or 'none'}"
            )

    def _check_context(self) -> None:
        most = self.loaded.protocol.capabilities.max_length
        for prompt, ids in zip(self.prompts, self.ids, strict=True):
            if most is not None and len(ids) + self._args.max_new_tokens > most:
                raise ContextError(
                    f"prompt '{prompt.name}' has {len(ids)} tokens and --max-new-tokens is {self._args.max_new_tokens}, but "
                    f"model '{self.loaded.name}' has {most} positions; lower --max-new-tokens or choose other --domains"
                )

    def _ours(self, nodes: int | None) -> list[Contestant]:
        return our_contestants(self._args.methods, self._args.settings, nodes, self.loaded, self._models)

    def _contestants(self, rows: int) -> tuple[list[Contestant], NodeChoice | None]:
        """Who races in batches of `rows`, and the tree size that was measured for them with `--nodes auto`."""
        choice = None
        if self._args.nodes == "auto":
            self._tell(f"batch {rows}: measuring which tree size pays")
            choice = measure_nodes(self.loaded, rows)
        found = [*self._ours(choice.nodes if choice else self._args.nodes), *self._peers]
        return [contestant for contestant in found if contestant.supports(rows)], choice

    def run(self, write: Write) -> bool:
        """All batches and temperatures; True if no greedy text of a lossless method left the reference without
        excuse."""
        reference, equal = self.reference(), True
        repetitions = [repetition(tokens) for tokens in reference]
        for title, field, context in self.fields(lambda rows: make_units(self.prompts, self.ids, repetitions, rows), reference):
            found = list(records(field, context))
            for record in found:
                write(record)
            print(f"\n## {title}\n\n{report(found)}\n", flush=True)
            equal = equal and all_equal(found)
        return equal

    def reference(self) -> list[list[int]]:
        """What plain decoding makes of each prompt alone, greedy."""
        self._tell("plain greedy decoding of each prompt alone, the reference")
        return [self._plain(ids) for ids in self.ids]

    def fields(
        self, units_of: Callable[[int], Sequence[Unit]], reference: Sequence[Sequence[int]]
    ) -> Iterator[tuple[str, Field, dict[str, Any]]]:
        """The races of all batches and temperatures, one after another: a title, what was raced, and what every record says of
        it. units_of: what is decoded in batches of so many rows; reference: may be empty if nothing is raced at temperature 0."""
        args, referee = self._args, Referee(self.loaded, self.ids, reference)
        for rows in args.batches:
            contestants, choice = self._contestants(rows)
            units, measured = units_of(rows), dataclasses.asdict(choice) if choice else None
            for heat in args.temperatures:
                setting = Setting(heat, rows, args.max_new_tokens, args.seed, not args.stop_at_eos)
                name = f"temperature {heat:g}, batch {rows}"
                results = race(
                    contestants, units, setting, args.repeats, args.compile, functools.partial(self._tell, where=f"{name}: ")
                )
                field = Field(setting, contestants, results, referee if heat == 0 else None)
                yield f"{self._title()}, {name}", field, self.context | {"node_choice": measured}

    def _plain(self, ids: Sequence[int]) -> list[int]:
        most, ignore = self._args.max_new_tokens, not self._args.stop_at_eos
        return generate(self.loaded, list(ids), PLAIN, max_new_tokens=most, ignore_eos=ignore).tokens  # type: ignore[union-attr]

    def _title(self) -> str:
        context = self.context
        compiled = "compiled" if context["compiled"] else "eager"
        return f"{context['model']}, {context['dtype']}, {compiled}, prompts {context['prompt_set']['hash']}"

    def _tell(self, text: str, where: str = "") -> None:
        print(f"bench {self.context['task']}: {where}{text}", file=sys.stderr, flush=True)
