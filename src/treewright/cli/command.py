"""What the verbs share: running a typed function as a command, and printing."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import typer
from rich.console import Console

from treewright.core.errors import InputError

PROMPT_HELP = "The text to continue; '-' reads standard input."

# Newer typers carry a click of their own; the base of the one error class they export is right for both.
USAGE_ERROR: Any = next(base for base in typer.BadParameter.__mro__ if base.__name__ == "ClickException")


def run_command(verb: str, command: Callable[..., int | None], arguments: Sequence[str]) -> int:
    """Parses `arguments` by the signature of `command` and calls it; returns its exit code, 0 for None.

    Raises InputError for a command line that does not fit the signature.
    """
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command(name=verb)(command)
    parser = typer.main.get_command(app)
    try:
        code = parser.main(args=list(arguments), prog_name=f"treewright {verb}", standalone_mode=False)
    except USAGE_ERROR as error:
        sentence = error.format_message().strip().rstrip(".")
        raise InputError(f"{sentence}; see `treewright {verb} --help`") from error
    except SystemExit as error:
        # In this mode typer ends the process for one reason only: the reader of standard output has gone.
        raise BrokenPipeError from error
    except typer.Abort as error:
        raise KeyboardInterrupt from error
    return code or 0


def output() -> Console:
    """Standard output. Off a terminal lines are as long as they need to be, so that they can be searched."""
    console = Console(highlight=False, markup=False, emoji=False)
    return console if console.is_terminal else Console(highlight=False, markup=False, emoji=False, width=160)


def notes() -> Console:
    """Standard error: progress and accounts, which are not the answer."""
    return Console(stderr=True, highlight=False, markup=False, emoji=False)


def read_prompt(written: str) -> str:
    """The PROMPT argument, or standard input, as it is, for '-'. Raises InputError for what is not UTF-8."""
    if written != "-":
        return written
    try:
        return sys.stdin.read()
    except UnicodeDecodeError as error:
        raise InputError(f"standard input is not UTF-8 ({error.reason} at byte {error.start}); encode it as UTF-8") from error


def check_folder(option: str, path: Path | None) -> None:
    """Raises InputError where a file cannot be written later, so that no work is done in vain."""
    if path is not None and not path.parent.is_dir():
        raise InputError(f"{option} is '{path}', but there is no folder '{path.parent}'; make it first")
    if path is not None and path.is_dir():
        raise InputError(f"{option} is '{path}', which is a folder; give a file")


def print_json(value: Any) -> None:
    """One JSON document on standard output."""
    print(json.dumps(value, indent=2, ensure_ascii=False))
