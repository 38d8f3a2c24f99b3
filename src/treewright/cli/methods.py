"""`treewright methods`: what is installed. Reads the method files without importing them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import typer
from rich.table import Table

from treewright.cli.catalogue import catalogue
from treewright.cli.command import output, print_json, run_command
from treewright.core.card import Card
from treewright.core.errors import InputError
from treewright.core.registry import methods


def command(
    family: Annotated[str | None, typer.Option("--family", help="Only the methods of this family.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list.")] = False,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Print the page docs/methods.md.")] = False,
) -> None:
    """List the installed methods."""
    cards = methods(family)
    if as_json and as_markdown:
        raise InputError("--json and --markdown were both given; choose one")
    if as_markdown:
        print(catalogue(cards), end="")
        return
    if as_json:
        print_json([summary(card) for card in cards])
        return
    table = Table("name", "family", "paper", "lossless", "models", box=None, pad_edge=False, header_style="bold")
    for card in cards:
        paper = f"{card.title}, {card.year}" if card.year else card.title
        table.add_row(card.name, card.family, paper, "yes" if card.lossless else "no", ", ".join(("target", *card.models)))
    output().print(table)


def summary(card: Card) -> dict[str, Any]:
    """What scripts are told of a method; `card` is its number in the list of papers, or None."""
    return {
        "name": card.name, "family": card.family, "title": card.title, "card": card.card, "lossless": card.lossless,
        "claims": list(card.claims), "needs": list(card.needs), "roles": list(card.roles),
    }  # fmt: skip


def run(arguments: Sequence[str]) -> int:
    return run_command("methods", command, arguments)
