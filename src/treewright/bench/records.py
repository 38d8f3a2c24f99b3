"""The lines that `bench predict` reads back from other tasks' JSON, each value checked where it is read."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from treewright.core.errors import InputError
from treewright.core.typed import WrongType, read

T = TypeVar("T")
Cell = tuple[str, str, float]
"""Domain, kind of texts, temperature."""

MOST = 10**9
"""More of anything than any run counts, so that sums and ratios of what was read stay finite."""


@dataclass(frozen=True, slots=True)
class Kind:
    """What a value may be: its annotation, what else holds of it where it is not null, and both in words."""

    annotation: Any
    words: str
    holds: Callable[[Any], bool] = lambda value: True

    def or_null(self) -> Kind:
        return Kind(self.annotation | None, f"{self.words}, or null", self.holds)


TEXT, FLAG, OBJECT = Kind(str, "text"), Kind(bool, "true or false"), Kind(dict, "an object")
COUNT = Kind(int, f"an integer from 1 to {MOST}", lambda value: 1 <= value <= MOST)
AMOUNT = Kind(float, f"a number from 0 to {MOST}", lambda value: 0 <= value <= MOST)
COUNTS = Kind(
    tuple[int, ...], f"a list of integers from 1 to {MOST}", lambda values: values and all(1 <= value <= MOST for value in values)
)
TIMES = Kind(
    tuple[float, ...], f"a list of numbers from {1 / MOST:g} to {MOST}",
    lambda values: values and all(1 / MOST <= value <= MOST for value in values),
)  # fmt: skip
POSITIVE = Kind(float, f"a number from {1 / MOST:g} to {MOST}", lambda value: 1 / MOST <= value <= MOST)


@dataclass(frozen=True, slots=True)
class Line:
    """An object of a file: its values by key, and how a sentence names the place. within: the keys that lead to it."""

    place: str
    task: str
    values: Mapping[str, Any]
    within: str = ""

    def read(self, key: str, kind: Kind) -> Any:
        """The value under `key`. Raises InputError where it is missing or of another kind."""
        if key not in self.values:
            raise self.wrong(f"{self.within}{key} is missing", kind.words)
        try:
            value = read(self.values[key], kind.annotation)
            if value is None or kind.holds(value):
                return value
        except WrongType:
            pass
        raise self.wrong(f"{self.within}{key} is {_shown(self.values[key])}", kind.words)

    def inner(self, key: str) -> Line:
        """The object under `key`."""
        return Line(self.place, self.task, self.read(key, OBJECT), f"{self.within}{key}.")

    def wrong(self, what: str, allowed: str) -> InputError:
        """The sentence about a mistake."""
        return InputError(f"{self.place}: {what}; allowed: {allowed}; give what `treewright bench {self.task} --json FILE` wrote")


@dataclass(frozen=True, slots=True)
class Rounds:
    """What the rounds of a method of ours were. calls_by_columns: how many of the target's forwards had how many columns."""

    tokens_per_call: float
    claims_per_round: float
    calls_by_columns: Mapping[int, int]
    outside_ms_per_round: float
    draft_share: float


@dataclass(frozen=True, slots=True)
class Run:
    """What a record says of the run it is of: the place, which is model, dtype and step, and the texts."""

    place: str
    prompts: str
    max_new_tokens: int


@dataclass(frozen=True, slots=True)
class SpeedRecord:
    """A contestant of `bench speed` or `bench spec` in one cell. rounds: None of peers. ratio_to_plain: None where plain decoding
    did not run. tokens, seconds: of all its units together; reading: the seconds of them in which prompts were read, 0 where that
    is not known."""

    run: Run
    method: str
    domain: str
    texts: str
    temperature: float
    batch: int
    peer: bool
    rounds: Rounds | None
    ratio_to_plain: float | None
    tokens: int
    seconds: float
    reading: float

    @property
    def cell(self) -> Cell:
        """Domain, kind of texts, temperature."""
        return self.domain, self.texts, self.temperature

    @property
    def key(self) -> tuple[str, str, str, float, int]:
        return self.method, self.domain, self.texts, self.temperature, self.batch

    @staticmethod
    def of(line: Line) -> SpeedRecord:
        """Raises InputError."""
        peer, ratio = line.read("peer", FLAG), line.read("ratio_to_plain", OBJECT.or_null())
        run = Run(_place(line), line.inner("prompt_set").read("hash", TEXT), line.read("max_new_tokens", COUNT))
        reading = line.read("reading_seconds", AMOUNT.or_null()) if "reading_seconds" in line.values else None
        return SpeedRecord(
            run, line.read("method", TEXT), line.read("domain", TEXT), line.read("texts", TEXT), line.read("temperature", AMOUNT),
            line.read("batch", COUNT), peer, None if peer else _rounds(line),
            None if ratio is None else line.inner("ratio_to_plain").read("value", POSITIVE),
            sum(line.read("unit_tokens", COUNTS)), sum(line.read("unit_seconds", TIMES)), reading or 0.0,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class CostRecord:
    """What a round over some claims costs at a place, from `bench verify-cost`."""

    place: str
    batch: int
    shape: str
    claims: int
    ms: float

    @staticmethod
    def of(line: Line) -> CostRecord:
        """Raises InputError."""
        return CostRecord(
            _place(line), line.read("batch", COUNT), line.read("shape", TEXT), line.read("claims", COUNT),
            line.read("ms", POSITIVE),
        )  # fmt: skip


def read_records(path: Path, task: str, of: Callable[[Line], T]) -> list[T]:
    """The records of a task in a JSON-lines file, those of other tasks left out. Raises InputError for a line that is none, and
    where there is none of this task."""
    wrote = f"give what `treewright bench {task} --json FILE` wrote"
    if not path.is_file():
        raise InputError(f"{path} is no file; {wrote}")
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is no UTF-8 text ({error}); {wrote}") from error
    found = []
    for number, written in enumerate(lines, start=1):
        if written.strip():
            line = _line(f"{path}, line {number}", task, written)
            if line.read("task", TEXT) == task:
                found.append(of(line))
    if not found:
        raise InputError(f"{path} holds no record of `bench {task}`; {wrote}")
    return found


def _place(line: Line) -> str:
    step = "compiled" if line.read("compiled", FLAG) else "eager"
    return f"{line.read('model', TEXT)}, {line.read('dtype', TEXT)}, {step}"


def _line(place: str, task: str, written: str) -> Line:
    try:
        values = json.loads(written)
    except (ValueError, RecursionError):
        values = None
    line = Line(place, task, values)
    if not isinstance(values, dict):
        cut = written if len(written) <= 60 else f"{written[:57]}..."
        raise line.wrong(f"the line is {cut}", "a JSON object")
    return line


def _rounds(line: Line) -> Rounds:
    sizes = line.inner("calls_by_columns")
    for size in sizes.values:
        if not re.fullmatch("[1-9][0-9]{0,8}", size):
            raise sizes.wrong(f"{sizes.within}{_shown(size)} stands for a number of columns", COUNT.words)
    counts = {int(size): sizes.read(size, COUNT) for size in sizes.values}
    return Rounds(
        line.read("tokens_per_call", AMOUNT), line.read("claims_per_round", AMOUNT), counts,
        line.read("outside_ms_per_round", AMOUNT), line.read("draft_share", AMOUNT),
    )  # fmt: skip


def _shown(value: Any) -> str:
    """A value as the file has it, cut where it is long."""
    written = json.dumps(value)
    return written if len(written) <= 60 else f"{written[:57]}..."
