"""`treewright bench masked`: accuracy and calls of the samplers of a masked model on list operations, one prompt at a time.

Tasks with one right answer can be solved in a call; in the others (shuffle, a random place) slots that are filled together know
nothing of each other, and that is where samplers differ. Problems are held out: the bundled model was not trained on them.
"""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from random import Random
from typing import Any

from treewright.api import Loaded, generate, load
from treewright.bench.arguments import Parser, add_common, parse, positive
from treewright.bench.machine import machine, model_record, versions
from treewright.bench.report import markdown, number, record_writer
from treewright.train.list_tasks import INSTRUCTIONS, SET_VALUED, Problem, problems

CONTESTANTS: dict[str, tuple[str, Mapping[str, Any]]] = {
    "one a step": ("llada", {}),
    "random, one a step": ("llada", {"rank": "random"}),
    "two a step": ("llada", {"tokens": 2}),
    "four a step": ("llada", {"tokens": 4}),
    "all at once": ("llada", {"steps": 1}),
    "threshold 0.9": ("fast_dllm", {"threshold": 0.9}),
    "threshold 0.7": ("fast_dllm", {"threshold": 0.7}),
    "factor 1": ("fast_dllm", {"factor": 1.0}),
    "threshold 0.9, blocks of 4": ("fast_dllm", {"block": 4}),
    "the same, prefix cache": ("fast_dllm", {"block": 4, "cache": "prefix"}),
    "the same, dual cache": ("fast_dllm", {"block": 4, "cache": "dual"}),
    "FreeDave, 4 drafts": ("free_dave", {"drafts": 4}),
    "FreeDave, 8 drafts": ("free_dave", {"drafts": 8}),
}
REFERENCE = "one a step"


@dataclass(slots=True)
class Score:
    """What one sampler did on one task. same: answers equal to those of the reference, slot by slot."""

    problems: int = 0
    right: int = 0
    same: int = 0
    calls: int = 0
    slots: int = 0

    def add(self, other: Score) -> None:
        """Sums two scores."""
        for name in self.__slots__:
            setattr(self, name, getattr(self, name) + getattr(other, name))

    def per_problem(self) -> dict[str, float]:
        """Shares and means."""
        return {name: getattr(self, name) / self.problems for name in self.__slots__ if name != "problems"}


@dataclass(slots=True)
class Sheet:
    """All problems, and the reference's tokens for each."""

    asked: list[Problem]
    canvas: int
    reference: list[list[int]] = field(default_factory=list)

    def play(self, loaded: Loaded, method: str, options: Mapping[str, Any]) -> dict[str, Score]:
        """One sampler on every problem; the score of each task."""
        scores = {task: Score() for task in INSTRUCTIONS}
        first = not self.reference
        for index, problem in enumerate(self.asked):
            done: Any = generate(loaded, problem.prompt, method, options, max_new_tokens=self.canvas)
            if first:
                self.reference.append(done.tokens)
            calls = [call for call in done.trace.calls if call.kind == "score"]
            right, same = problem.accepts(done.text.split()), done.tokens == self.reference[index]
            columns = sum(call.rows * call.columns for call in calls)
            scores[problem.task].add(Score(1, int(right), int(same), len(calls), columns))
        return scores


def run(argv: list[str]) -> int:
    """Prints one line for each sampler; returns the exit code."""
    args = _parse(argv)
    loaded = load(args.model, device=args.device)
    each = 2 if args.quick else args.problems
    asked = list(islice(problems(Random(args.seed), held_out=True), each * len(INSTRUCTIONS)))
    sheet, lines = Sheet(asked, args.canvas), list[Sequence[str]]()
    where = {"machine": machine(loaded.model.device), "versions": versions(), **model_record(loaded, compiled=False)}
    where |= {"task": "masked", "canvas": args.canvas, "seed": args.seed}
    with record_writer(args.json) as write:
        for name, (method, options) in CONTESTANTS.items():
            print(f"bench masked: {name}", file=sys.stderr, flush=True)
            scores = sheet.play(loaded, method, options)
            for record in _records(name, method, options, scores):
                write(where | record)
            lines.append(_line(name, scores))
    headers = ("sampler", "right: one answer", "calls", "right: sets", "calls", "right", "calls", "slots", "same")
    print(f"{each} held-out problems of each of {len(INSTRUCTIONS)} tasks, a canvas of {args.canvas} slots\n")
    print(markdown(headers, lines))
    print(f"\n{_by_task(sheet, loaded)}")
    return 0


def _parse(argv: list[str]) -> Namespace:
    parser = Parser("masked", "Accuracy and calls of the samplers of a masked model on list operations.")
    parser.add_argument("--model", default="default-masked", help="a bundled name, a transformers id or a folder")
    parser.add_argument("--problems", type=positive, default=50, help="problems of each task")
    parser.add_argument("--canvas", type=positive, default=8, help="slots of an answer")
    parser.add_argument("--seed", type=int, default=0, help="of the problems")
    add_common(parser)
    return parse(parser, argv)


def _sum(scores: Mapping[str, Score], tasks: Sequence[str]) -> Score:
    total = Score()
    for task in tasks:
        total.add(scores[task])
    return total


def _records(
    name: str, method: str, options: Mapping[str, Any], scores: Mapping[str, Score]
) -> Iterator[dict[str, Any]]:  # fmt: skip
    for task, score in scores.items():
        yield {"sampler": name, "method": method, "options": dict(options), "operation": task} | score.per_problem()


def _line(name: str, scores: Mapping[str, Score]) -> list[str]:
    cells = [name]
    single = [task for task in INSTRUCTIONS if task not in SET_VALUED]
    for tasks in (single, list(SET_VALUED), list(INSTRUCTIONS)):
        mean = _sum(scores, tasks).per_problem()
        cells += [f"{mean['right']:.1%}", number(mean["calls"])]
    return [*cells, number(mean["slots"], 0), f"{mean['same']:.1%}"]


def _by_task(sheet: Sheet, loaded: Loaded) -> str:
    """The reference's accuracy task by task."""
    scores = sheet.play(loaded, *CONTESTANTS[REFERENCE])
    return markdown(
        ("task", "right, one a step"), [(task, f"{score.right / score.problems:.1%}") for task, score in scores.items()]
    )
