"""docs/methods.md, written from the cards of the method files (`treewright methods --markdown`)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from treewright.core.card import Card

HEAD = """# Methods

Written by `treewright methods --markdown > docs/methods.md` from what each method file says of itself; `make lint` keeps
it current. Names joined by `+` decode together where their seats in the round do not collide.
"""


def catalogue(cards: Sequence[Card]) -> str:
    """The page: one section for each family, one entry for each method."""
    by_family = groupby(sorted(cards, key=lambda card: (card.family, card.name)), key=lambda card: card.family)
    sections = [f"## {family}\n\n" + "\n".join(entry(card) for card in members) for family, members in by_family]
    return HEAD + "\n" + "\n".join(sections)


def entry(card: Card) -> str:
    """One method: its paper, what it does, what it needs and claims, its options."""
    paper = f"[{card.title}]({card.link}), {card.year}" if card.link else card.title
    facts = [
        ("paper", paper),
        ("seats in the round", ", ".join(card.roles)),
        ("goes with", "a drafter that asks it after each draft of a chain, such as `speculative_sampling`" * card.needs_drafter),
        ("the target must have", ", ".join(card.needs)),
        ("further models", ", ".join(f"`{role}`" for role in card.models)),
        ("judges of text", ", ".join(str(scorer) for scorer in card.scorers)),
        ("claims", card.claims_told),
    ]
    lines = [f"### `{card.name}`", "", card.summary, ""]
    lines += [f"- {name}: {value}" for name, value in facts if value]
    if card.options:
        lines += ["", "| option | default | type | meaning |", "|---|---|---|---|"]
        lines += [f"| `{o.name}` | `{o.default!r}` | `{_cell(o.type)}` | {_cell(o.help)} |" for o in card.options]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
