"""A file of prompts, decoded batch by batch into a file of answers; a run that was cut off goes on where it stood."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from treewright.cli.answers import answer
from treewright.cli.models import load_models
from treewright.cli.rows import InputRow, OutputFile, fingerprint, read_rows
from treewright.core.errors import InputError, TreewrightError
from treewright.core.recipe import Recipe

if TYPE_CHECKING:
    from treewright.api import Job, Loaded


def _model_calls(results: Sequence[Any]) -> int:
    """Target forwards of a batch. Its rows share them, and each row's trace holds those of its own time."""
    calls = {id(call): call for result in results for call in result.trace.calls}
    return sum(call.model == "target" and call.kind == "score" for call in calls.values())


class Batches:
    """The batches are the same whether a run is cut off or not: the first B rows, the next B and so on, each with a seed of its
    own. So a row's text does not depend on where earlier runs stopped."""

    def __init__(
        self, source: Path, destination: Path, recipe: Recipe, settings: Mapping[str, Any], loading: tuple[Any, ...]
    ) -> None:
        """Reads the input and what is there of the output. Raises InputError for what is wrong with either."""
        self._source, self._destination, self._recipe = source, destination, recipe
        self._settings, self._loading = dict(settings), loading
        self._rows = read_rows(source)
        self._output = OutputFile(destination, self._rows, self._fingerprint())
        # Samples are rows too: a batch holds as many prompts as have room for all of theirs.
        self._size = max(1, self._settings["batch_rows"] // self._settings["samples"])

    def _fingerprint(self) -> str:
        """Everything that decides the text. The size of the batches does only where chance does: it decides the seeds."""
        model, others, dtype, _, _ = self._loading
        settings = {name: value for name, value in self._settings.items() if name != "batch_rows"}
        constraint = settings.pop("constraint", None)
        settings["constraint"] = None if constraint is None else constraint.lark
        settings["sampling"] = dataclasses.asdict(settings["sampling"])
        settings["budget"] = dataclasses.asdict(settings["budget"])
        greedy = self._settings["sampling"].greedy
        size = None if greedy and settings["budget"] == dict.fromkeys(settings["budget"]) else self._settings["batch_rows"]
        return fingerprint([model, others, dtype, self._recipe.to_json(), settings, size])

    def run(self, console: Console) -> dict[str, Any]:
        """Decodes the rows that are not there yet; returns the account. Checks every prompt before the first forward."""
        already = len(self._output.done)
        jobs: list[tuple[range, Job]] = []
        if already < len(self._rows):
            target, others = load_models(*self._loading, scorers=self._recipe.scorers())
            jobs = self._jobs(target, others)
        calls, tokens, begin = 0, 0, time.perf_counter()
        with self._progress(console) as progress:
            bar = progress.add_task(self._source.name, total=len(self._rows), completed=already)
            for rows, job in jobs:
                results = job.finish()
                fresh = [(row, result) for row, result in zip(rows, results, strict=True) if row not in self._output.done]
                self._output.append([(row, answer(result)) for row, result in fresh])
                calls += _model_calls(results)
                tokens += sum(len(sample.tokens) for result in results for sample in result.samples)
                progress.update(bar, completed=len(self._output.done))
        account = {
            "rows": len(self._rows), "already": already, "decoded": len(self._output.done) - already, "tokens": tokens,
            "model_calls": calls, "seconds": time.perf_counter() - begin,
        }  # fmt: skip
        console.print(self._sentence(account), soft_wrap=True)
        return account

    def _sentence(self, account: Mapping[str, Any]) -> str:
        return (
            f"{self._destination}: {account['rows']} rows, {account['already']} were there, {account['decoded']} decoded with "
            f"{self._recipe}: {account['tokens']} tokens, {account['model_calls']} model calls, {account['seconds']:.2f} s"
        )

    def _progress(self, console: Console) -> Progress:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        return Progress(*columns, console=console, disable=not console.is_terminal)

    def _jobs(self, target: Loaded, others: dict[str, Loaded]) -> list[tuple[range, Job]]:
        """The batches that have something left to do, checked."""
        self._prepare(target, others, [InputRow(0, (0,), {})], 0).check()
        jobs = []
        for number, begin in enumerate(range(0, len(self._rows), self._size)):
            rows = range(begin, min(begin + self._size, len(self._rows)))
            if not self._output.done.issuperset(rows):
                jobs.append((rows, self._batch(target, others, [self._rows[row] for row in rows], number)))
        return jobs

    def _batch(self, target: Loaded, others: dict[str, Loaded], rows: list[InputRow], number: int) -> Job:
        try:
            return self._prepare(target, others, rows, number)
        except InputError:
            for row in rows:
                try:
                    self._prepare(target, others, [row], number)
                except TreewrightError as error:
                    raise type(error)(f"{self._source}, line {row.line}: {error}") from error
            raise

    def _prepare(self, target: Loaded, others: dict[str, Loaded], rows: list[InputRow], number: int) -> Job:
        """A checked batch. Its seed is the run's own for the first batch and a mix of that and its number for others, so that
        rows of different batches share no noise."""
        from treewright.api import prepare

        seed = self._settings["seed"]
        settings = {**self._settings, "seed": seed if number == 0 else int(fingerprint([seed, number]), 16)}
        options = {f"{method}.{name}": value for method, name, value in self._recipe.options}
        return prepare(target, [row.prompt for row in rows], self._recipe.name, options, others, settings)
