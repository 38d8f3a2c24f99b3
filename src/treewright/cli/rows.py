"""The rows of an input file: one JSON object a line, checked whole before anything is decoded."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from treewright.cli.answers import FIELDS
from treewright.core.errors import InputError

MARK = "treewright"
"""The first field of an output line: which row of which run it answers."""

ADVICE = "give another --output, or remove the file"
FOREIGN = f"not a line of `treewright generate`; {ADVICE}"
WRITTEN = (MARK, *(name for name in FIELDS if name != "tokens"))


@dataclass(frozen=True, slots=True)
class InputRow:
    """One line of the input. `prompt` is text or token ids; `fields` are copied to the output line."""

    line: int
    prompt: str | tuple[int, ...]
    fields: dict[str, Any]

    @property
    def digest(self) -> str:
        """What tells this prompt from others."""
        return fingerprint(self.prompt)


def fingerprint(value: Any) -> str:
    """Sixteen hexadecimal digits of the SHA-256 of a value's JSON."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def read_rows(path: Path) -> list[InputRow]:
    """All rows of a file; empty lines are passed over. Raises InputError that names the file, the line and the fault."""
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise InputError(f"cannot read --input '{path}': {error.strerror}") from error
    rows = [_row(f"{path}, line {number}", number, line) for number, line in enumerate(lines, start=1) if line.strip()]
    if not rows:
        raise InputError(f'--input \'{path}\' holds no rows; write one JSON object a line, such as {{"prompt": "..."}}')
    return rows


def _row(place: str, number: int, line: bytes) -> InputRow:
    try:
        record = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise InputError(f"{place}: not UTF-8 text ({error.reason} at byte {error.start})") from error
    except json.JSONDecodeError as error:
        raise InputError(f"{place}: not JSON ({error.msg} at column {error.colno})") from error
    if not isinstance(record, dict):
        raise InputError(f'{place}: a JSON {type(record).__name__}; write an object with "prompt" or "tokens"')
    if ("prompt" in record) == ("tokens" in record):
        found = "both" if "prompt" in record else f"only {', '.join(record) or 'no fields'}"
        raise InputError(f'{place}: needs either "prompt" or "tokens", has {found}')
    taken = next((name for name in record if name in WRITTEN), None)
    if taken is not None:
        raise InputError(f'{place}: field "{taken}" is one that the output line writes itself; rename it')
    fields = {name: value for name, value in record.items() if name not in ("prompt", "tokens")}
    return InputRow(number, _prompt(place, record), fields)


def _prompt(place: str, record: dict[str, Any]) -> str | tuple[int, ...]:
    if "prompt" in record:
        prompt = record["prompt"]
        if not isinstance(prompt, str):
            raise InputError(f'{place}: "prompt" is {json.dumps(prompt)[:60]}; it must be text')
        return prompt
    tokens = record["tokens"]
    if not isinstance(tokens, list) or not tokens or not all(type(token) is int and token >= 0 for token in tokens):
        raise InputError(f'{place}: "tokens" is {json.dumps(tokens)[:60]}; it must be a list of at least one token id')
    return tuple(tokens)


class OutputFile:
    """The answers, one JSON line for each row, appended as they come.

    Each line begins with the row's index, the prompt's fingerprint and that of the settings. So a second run knows what is
    there, and a file that came from somewhere else is never touched.
    """

    def __init__(self, path: Path, rows: Sequence[InputRow], settings: str) -> None:
        self._path, self._rows, self._settings = path, rows, settings
        self._repair_at: int | None = None
        self.done = self._read()

    def _read(self) -> set[int]:
        """Indices of the rows that are there. Raises InputError for a file that this run did not begin."""
        if not self._path.exists():
            return set()
        content = self._path.read_bytes()
        *lines, rest = content.split(b"\n")
        done = {self._index(number, line) for number, line in enumerate(lines, start=1)}
        if rest:
            self._check_rest(len(lines) + 1, rest)
            self._repair_at = len(content) - len(rest)
        return done

    def _index(self, number: int, line: bytes) -> int:
        place = f"--output '{self._path}', line {number}"
        try:
            mark = json.loads(line)[MARK]
            index, settings, prompt = mark["row"], mark["settings"], mark["prompt"]
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{place}: {FOREIGN}") from error
        if settings != self._settings:
            raise InputError(f"{place}: decoded with another model, method or settings than asked for now; {ADVICE}")
        if not 0 <= index < len(self._rows) or self._rows[index].digest != prompt:
            raise InputError(f"{place}: row {index} answers another prompt than row {index} of --input; {ADVICE}")
        return index

    def _check_rest(self, number: int, rest: bytes) -> None:
        """The last line has no end: it may only be the beginning of a line of ours, which a cut-off run left behind."""
        opening = json.dumps({MARK: {}})[:-3].encode()
        if not (rest.startswith(opening) or opening.startswith(rest)):
            raise InputError(f"--output '{self._path}', line {number}: {FOREIGN}")

    def append(self, answers: Sequence[tuple[int, dict[str, Any]]]) -> None:
        """Writes the answers of a batch, (row index, fields), and waits until the disk has them."""
        with self._path.open("r+b" if self._path.exists() else "w+b") as file:
            if self._repair_at is not None:
                file.truncate(self._repair_at)
                self._repair_at = None
            file.seek(0, os.SEEK_END)
            for index, answer in answers:
                file.write(self._line(index, answer))
            file.flush()
            os.fsync(file.fileno())
        self.done |= {index for index, _ in answers}

    def _line(self, index: int, answer: dict[str, Any]) -> bytes:
        row = self._rows[index]
        mark = {"row": index, "settings": self._settings, "prompt": row.digest}
        return json.dumps({MARK: mark, **row.fields, **answer}, ensure_ascii=False).encode() + b"\n"
