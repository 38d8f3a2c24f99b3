"""`treewright certify`: runs the checks behind each lossless claim on the model at hand."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from treewright.cli import options as option
from treewright.cli.command import notes, output, print_json, run_command
from treewright.cli.models import load_models
from treewright.core.errors import InputError
from treewright.core.registry import entry, methods

if TYPE_CHECKING:
    from treewright.api import Loaded

Names = Annotated[str, typer.Option("--methods", metavar="all|A,B", help="'all': every lossless method that fits the model.")]
FAILED = 1


def command(
    model: option.ModelName = "default", names: Names = "all", others: option.With = None,
    dtype: option.Dtype = None, device: option.Device = None, compiled: option.Compile = False, as_json: option.Json = False,
) -> int:  # fmt: skip
    """Prove on a model that methods give what they claim. Exit code 1 if a check fails."""
    wanted = None if names == "all" else option.names("--methods", names)
    for name in wanted or ():
        if not entry(name).card.lossless:
            raise InputError(f"method '{name}' does not claim to be lossless, so there is nothing to certify; leave it out")
    target, models = load_models(model, option.pairs("--with", others), dtype, device, compiled)
    if wanted is None:
        wanted = _fitting(target, models)
    from treewright.testing.certify import certify

    rows = certify(target, wanted, models)
    if as_json:
        print_json([dataclasses.asdict(row) for row in rows])
    else:
        _print(rows)
    return 0 if all(row.passed for row in rows) else FAILED


def _fitting(target: Loaded, roles: Collection[str]) -> list[str]:
    """The lossless methods that can run on this model with the further models at hand; says which ones cannot, and why."""
    fitting = []
    for card in methods():
        lacking = [f"--with {role}=MODEL" for role in card.models if role not in roles]
        lacking += target.protocol.capabilities.missing(card.needs)
        if card.lossless and lacking:
            notes().print(f"left out: {card.name}, which needs {', '.join(lacking)}", soft_wrap=True)
        elif card.lossless:
            fitting.append(card.name)
    return fitting


def _print(rows: Sequence[Any]) -> None:
    table = Table("method", "check", "", "seconds", "detail", box=None, pad_edge=False, header_style="bold")
    for row in rows:
        style = "" if row.passed else "red"
        table.add_row(row.method, row.check, "passed" if row.passed else "FAILED", f"{row.seconds:.2f}", row.detail, style=style)
    console = output()
    console.print(table)
    failed = sum(not row.passed for row in rows)
    console.print(f"{len(rows)} checks, {failed} failed" if failed else f"{len(rows)} checks, all passed")


def run(arguments: Sequence[str]) -> int:
    return run_command("certify", command, arguments)
