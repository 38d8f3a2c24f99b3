"""How to decode, as plain data: method names joined by '+', and their options. Printable, hashable, JSON in and out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from treewright.core.card import Card
from treewright.core.errors import CompositionError, InputError, UnknownOption, choices
from treewright.core.registry import called, entry

SINGLE_SEAT = ("propose", "verify", "accept", "control", "draw", "select", "drive")


@dataclass(frozen=True, slots=True)
class Recipe:
    """methods: names in order. options: (method, option, value) triples, sorted."""

    methods: tuple[str, ...]
    options: tuple[tuple[str, str, Any], ...] = ()

    def __str__(self) -> str:
        written = [f"{method}.{name}={value!r}" for method, name, value in self.options]
        return self.name + (f" ({', '.join(written)})" if written else "")

    @property
    def name(self) -> str:
        """What `Recipe.of` reads: the methods' names joined by '+'."""
        return "+".join(self.methods)

    def cards(self) -> list[Card]:
        return [entry(name).card for name in self.methods]

    def options_of(self, method: str) -> dict[str, Any]:
        return {name: value for owner, name, value in self.options if owner == method}

    def scorers(self) -> dict[str, str]:
        """The roles to be filled by what judges texts, each with the method that asks for it."""
        return {role: card.name for card in self.cards() for role in card.scorers_under(self.options_of(card.name))}

    def to_json(self) -> dict[str, Any]:
        return {"method": self.name, "options": {f"{m}.{n}": v for m, n, v in self.options}}

    @staticmethod
    def of(method: str, options: Mapping[str, Any] | None = None) -> Recipe:
        """Reads "a+b" and {"option": value} or {"a.option": value}; an option without its method's name belongs to
        the one method that has it. Methods may be called by an alias; the recipe holds their names.
        Raises UnknownMethod, UnknownOption, CompositionError."""
        names = tuple(part.strip() for part in method.split("+"))
        if not all(names):
            raise InputError(f"method is '{method}'; write names joined by '+', such as token_recycling or a+b")
        cards = [entry(name).card for name in names]
        _check_seats(cards)
        placed = sorted(_place(cards, key, value) for key, value in (options or {}).items())
        return Recipe(tuple(card.name for card in cards), tuple((owner, name, _frozen(value)) for owner, name, value in placed))


def _frozen(value: Any) -> Any:
    return tuple(_frozen(part) for part in value) if isinstance(value, (list, tuple)) else value


def _check_seats(cards: list[Card]) -> None:
    for index, card in enumerate(cards):
        for other in cards[index + 1 :]:
            if card.name == other.name:
                raise CompositionError(f"method '{card.name}' stands twice in the recipe; name it once")
            shared = [seat for seat in card.roles if seat in SINGLE_SEAT and seat in other.roles]
            if shared:
                raise CompositionError(
                    f"'{card.name}' and '{other.name}' both take the single seat '{shared[0]}'; choose one of them"
                )


def _place(cards: list[Card], key: str, value: Any) -> tuple[str, str, Any]:
    owner, dot, name = key.rpartition(".")
    named = [card for card in cards if not dot or card.name == called(owner)]
    holders = [card for card in named if any(option.name == name for option in card.options)]
    if len(holders) > 1:
        raise UnknownOption(f"option '{key}' belongs to {' and '.join(c.name for c in holders)}; write METHOD.{name}")
    if not holders:
        allowed = [f"{card.name}.{option.name}" if len(cards) > 1 else option.name for card in cards for option in card.options]
        raise UnknownOption(f"unknown option '{key}' for {'+'.join(card.name for card in cards)}; {choices(key, allowed)}")
    return holders[0].name, name, value
