"""`treewright show METHOD`: one method's card and options, read without importing the method."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from rich.table import Table

from treewright.cli.command import output, print_json, run_command
from treewright.core.card import Card
from treewright.core.registry import find


def command(
    method: Annotated[str, typer.Argument(help="A method's name, an alias, or part of its paper's title.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object.")] = False,
) -> None:
    """Show one method: paper, options with defaults, claims and needs."""
    card = find(method)
    if as_json:
        print_json(_record(card))
    else:
        _print(card)


def _record(card: Card) -> dict[str, Any]:
    record = dataclasses.asdict(card)
    return {"name": card.name, "family": card.family, "lossless": card.lossless, **record}


def _print(card: Card) -> None:
    console = output()
    console.print(f"{card.name} ({card.family})", style="bold")
    console.print(card.summary)
    facts = Table(box=None, pad_edge=False, show_header=False)
    facts.add_row("paper", f"{card.title}, {card.year}" if card.year else card.title)
    rows = (
        ("link", card.link), ("number", "" if card.card is None else str(card.card)), ("also known as", "; ".join(card.aliases)),
        ("claims", card.claims_told), ("needs", ", ".join(card.needs)), ("roles", ", ".join(card.roles)),
        ("further models", ", ".join(f"--with {role}=MODEL" for role in card.models)),
        ("judges of text", ", ".join(str(scorer) for scorer in card.scorers)),
    )  # fmt: skip
    for name, value in rows:
        if value:
            facts.add_row(name, value)
    console.print(facts)
    if not card.options:
        console.print("no options")
        return
    options = Table("option", "default", "type", "meaning", box=None, pad_edge=False, header_style="bold")
    for option in card.options:
        options.add_row(option.name, repr(option.default), option.type, option.help)
    console.print(options)


def run(arguments: Sequence[str]) -> int:
    return run_command("show", command, arguments)
