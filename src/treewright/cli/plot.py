"""`treewright plot TRACE.json -o FILE`: a picture of how a text was decoded."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from treewright.cli.command import check_folder, notes, run_command
from treewright.core.errors import InputError
from treewright.core.trace import Trace
from treewright.plots.trace import MOST_ROUNDS, draw_trace


def command(
    trace: Annotated[Path, typer.Argument(metavar="TRACE.json", help="What `generate --trace` or `Trace.to_json` wrote.")],
    file: Annotated[Path, typer.Option("-o", "--output", metavar="FILE", help="The picture: .png, .svg or .pdf.")],
    rounds: Annotated[int, typer.Option("--rounds", min=1, help="The most rounds that are drawn.")] = MOST_ROUNDS,
) -> None:
    """Draw how a text was decoded: token trees, accepted paths, model calls."""
    check_folder("--output", file)
    record = read_trace(trace)
    draw_trace(record, file, rounds)
    notes().print(f"drew {file}", soft_wrap=True)


def read_trace(path: Path) -> Trace:
    """Raises InputError for a file that holds no trace."""
    try:
        return Trace.from_json(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"'{path}' is not JSON ({error}); give what `treewright generate --trace` wrote") from error
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"'{path}' is JSON but no trace ({error}); give what `treewright generate --trace` wrote") from error


def run(arguments: Sequence[str]) -> int:
    return run_command("plot", command, arguments)
