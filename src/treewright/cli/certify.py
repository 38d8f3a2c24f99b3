"""`treewright certify`: runs the checks behind each lossless claim on the model at hand."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Annotated, Any

import typer
from rich.table import Table

from treewright.cli import options as option
from treewright.cli.command import output, print_json, run_command
from treewright.cli.models import load_models
from treewright.core.errors import InputError, choices
from treewright.core.recipe import Recipe
from treewright.core.registry import methods

Names = Annotated[str, typer.Option("--methods", metavar="all|A,B", help="'all': every lossless method that fits the model.")]
FAILED = 1


def command(
    model: option.ModelName = "default", names: Names = "all", others: option.With = None,
    dtype: option.Dtype = None, device: option.Device = None, compiled: option.Compile = False, as_json: option.Json = False,
) -> int:  # fmt: skip
    """Prove on a model that methods give what they claim. Exit code 1 if a check fails."""
    wanted = None if names == "all" else option.names("--methods", names)
    roles = option.pairs("--with", others)
    _check_roles(wanted, roles)
    target, models = load_models(model, roles, dtype, device, compiled)
    from treewright.testing.certify import certify

    rows = certify(target, wanted, models)
    if as_json:
        print_json([row.to_json() for row in rows])
    else:
        _print(rows)
    return 0 if all(row.passed for row in rows) else FAILED


def _check_roles(names: Sequence[str] | None, roles: Collection[str]) -> None:
    """Raises UnknownMethod, and InputError for a model that none of the methods would use."""
    cards = methods() if names is None else [card for name in names for card in Recipe.of(name).cards()]
    used = {role for card in cards for role in card.models}
    unused = sorted(set(roles) - used)
    if unused:
        raise InputError(f"no method that is certified uses a model for the role '{unused[0]}'; {choices(unused[0], used)}")


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
