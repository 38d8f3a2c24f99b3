"""`treewright certify`: runs the checks behind each lossless claim on the model at hand."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Annotated, Any

import typer
from rich.table import Table

from treewright.cli import options as option
from treewright.cli.command import notes, output, print_json, run_command
from treewright.cli.models import load_models
from treewright.core.errors import InputError, choices
from treewright.core.recipe import Recipe
from treewright.core.registry import methods

Names = Annotated[
    str, typer.Option("--methods", "--method", metavar="all|A,B", help="'all': each that claims a text and fits the model.")
]
Matrix = Annotated[
    bool,
    typer.Option("--matrix", help="Every lossless drafter under every kind of constraint and every steering."),
]
Pairwise = Annotated[bool, typer.Option("--pairwise", help="Of the matrix, some thirty cells in which every two parts meet.")]
Positional = Annotated[str | None, typer.Argument(metavar="MODEL", help="As --model.")]
GivenModel = Annotated[str | None, typer.Option("--model", help="A bundled name, a transformers id, or a folder (default).")]
FAILED = 1


def command(
    positional: Positional = None, model: GivenModel = None, names: Names = "all", others: option.With = None,
    dtype: option.Dtype = None, device: option.Device = None, compiled: option.Compile = False,
    matrix: Matrix = False, pairwise: Pairwise = False, as_json: option.Json = False,
) -> int:  # fmt: skip
    """Prove on a model that methods give what they claim. Exit code 1 if a check fails.

    Lossless methods are held to plain decoding; on a model that fills slots in any order, those that equal a static schedule
    are held to it.
    """
    if positional is not None and model is not None:
        raise InputError(f"the model was given as '{positional}' and as --model '{model}'; give it once")
    model = positional or model or "default"
    wanted = None if names == "all" else option.recipes("--methods", names)
    roles = option.pairs("--with", others)
    if pairwise and not matrix:
        raise InputError("--pairwise was given without --matrix, whose cells it chooses from; give both")
    _check_roles(None if matrix else wanted, roles)
    target, models = load_models(model, roles, dtype, device, compiled)
    if matrix:
        from treewright.testing.matrix import certify_matrix

        with notes().status("composing"):
            rows = certify_matrix(target, wanted, models, pairwise=pairwise)
    else:
        from treewright.testing.certify import certify

        rows = certify(target, wanted, models)
    if as_json:
        print_json([row.to_json() for row in rows])
    elif matrix:
        _print_matrix(rows)
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


def _print_matrix(rows: Sequence[Any]) -> None:
    """Drafters and constraints downwards, steering and sampling across; what failed in full below."""
    found: dict[tuple[str, ...], list[Any]] = {}
    for row in rows:
        found.setdefault(tuple(row.numbers["cell"]), []).append(row)
    across = sorted({cell[2:] for cell in found})
    table = Table("drafter", "constraint", *("\n".join(pair) for pair in across), box=None, pad_edge=False, header_style="bold")
    for left in sorted({cell[:2] for cell in found}):
        table.add_row(*left, *(_mark(found.get((*left, *pair), [])) for pair in across))
    console = output()
    console.print(table)
    for row in rows:
        if not row.passed:
            console.print(f"{row.check}: {row.detail}", style="red", soft_wrap=True)
    failed = sum(not row.passed for row in rows)
    numbers = [row.numbers for row in rows if "outcomes" in row.numbers]
    console.print(
        f"{len(found)} compositions, {len(rows)} checks, {failed or 'none'} failed; total variation from the exact law at most "
        f"{max(n['total_variation'] for n in numbers):.2g} over {sum(n['outcomes'] for n in numbers)} outcomes; T: law and "
        "tokens are those of plain decoding, L: the law, -: not asked",
        soft_wrap=True,
    )


def _mark(rows: Sequence[Any]) -> str:
    if not rows:
        return "-"
    return "FAILED" if not all(row.passed for row in rows) else "T" if len(rows) > 1 else "L"


def run(arguments: Sequence[str]) -> int:
    return run_command("certify", command, arguments)
