"""Reading the options of a task: one sentence on a mistake, lists by commas, files of options with '@'."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import torch

from treewright.api import Loaded
from treewright.core.errors import InputError
from treewright.core.recipe import option_value

T = TypeVar("T")


class Parser(argparse.ArgumentParser):
    """Raises InputError instead of ending the process. `@FILE` reads options from a file, '#' beginning a comment."""

    def __init__(self, task: str, description: str) -> None:
        super().__init__(
            prog=f"treewright bench {task}", description=description, fromfile_prefix_chars="@", allow_abbrev=False,
            epilog="@FILE reads options from FILE, '#' begins a comment there.",
        )  # fmt: skip

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{self.prog}: {message}; see {self.prog} --help")

    def convert_arg_line_to_args(self, arg_line: str) -> list[str]:
        return shlex.split(arg_line, comments=True)


def add_common(parser: Parser) -> None:
    """The options that all tasks share."""
    parser.add_argument("--json", type=Path, metavar="FILE", help="write one JSON record a line to FILE")
    parser.add_argument("--quick", action="store_true", help="a short run that shows that all works; its figures are rough")
    parser.add_argument("--threads", type=positive, default=None, help="processor threads; torch's choice if left out")
    parser.add_argument("--device", default=None, help="cpu, cuda or cuda:N; where the model is loaded if left out")


def parse(parser: Parser, argv: list[str]) -> argparse.Namespace:
    """The options of a run; sets the number of threads. Raises InputError."""
    args = parse_files(parser, argv)
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    return args


def parse_files(parser: Parser, argv: list[str]) -> argparse.Namespace:
    """The options of a task that writes `--json`. Raises InputError."""
    args = parser.parse_args(argv)
    if args.json is not None and not args.json.absolute().parent.is_dir():
        raise InputError(f"--json {args.json}: folder {args.json.absolute().parent} does not exist; create it first")
    return args


def positive(text: str) -> int:
    """An integer >= 1."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not an integer >= 1")
    return value


def temperature(text: str) -> float:
    """A number >= 0."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number >= 0")
    return value


def listed(read: Callable[[str], T]) -> Callable[[str], tuple[T, ...]]:
    """Reads "a,b,c" with `read` for each entry."""

    def read_all(text: str) -> tuple[T, ...]:
        parts = tuple(part.strip() for part in text.split(",") if part.strip())
        if not parts:
            raise argparse.ArgumentTypeError("an empty list; give at least one entry")
        return tuple(read(part) for part in parts)

    return read_all


def pair(text: str) -> tuple[str, str]:
    """KEY=VALUE as text."""
    key, equals, value = text.partition("=")
    if not equals or not key or not value:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form KEY=VALUE")
    return key, value


def assignment(text: str) -> tuple[str, Any]:
    """KEY=VALUE; the value as JSON where it is JSON, else as text."""
    key, value = pair(text)
    return key, option_value(value)


def token_ids(loaded: Loaded, text: str) -> list[int]:
    """A prompt as token ids. Raises InputError for a model without a tokenizer."""
    if loaded.tokenizer is None:
        raise InputError(f"model '{loaded.name}' has no tokenizer, so it cannot read the benchmark's prompts; choose another")
    return list(loaded.tokenizer(text)["input_ids"])
