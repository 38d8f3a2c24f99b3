"""How to decode, as plain data: method names joined by '+', and their options. Printable, hashable, JSON in and out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

from treewright.core.card import Card
from treewright.core.errors import CompositionError, InputError, UnknownOption, choices
from treewright.core.registry import called, entry
from treewright.core.typed import shown

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
        """The methods' own cards."""
        return [entry(name).card for name in self.methods]

    def all_cards(self) -> list[Card]:
        """The cards of the methods, and of those they choose among."""
        return self.cards() + [card for arm in self.arms() for card in arm.all_cards()]

    def arms(self) -> list[Recipe]:
        """The recipes that the methods choose among. Raises UnknownOption where they are no list, and what `read_method` and
        `of` raise."""
        found = []
        for card in self.cards():
            if card.arms:
                default = next(option.default for option in card.options if option.name == card.arms)
                written = self.options_of(card.name).get(card.arms, default)
                if not isinstance(written, tuple):
                    raise UnknownOption(
                        f"option '{card.name}.{card.arms}' is {shown(written)}; allowed: a list of recipes, such as "
                        '["prompt_lookup","token_recycling:nodes=16"]'
                    )
                found += [Recipe.of(*read_method(arm)) for arm in written]
        return found

    def roles(self) -> set[str]:
        """The roles of the models that it needs beside the target."""
        return {role for card in self.all_cards() for role in card.models}

    @property
    def lossless(self) -> bool:
        """Whether every method of it, and every one it chooses among, claims plain decoding's law."""
        return all(card.lossless for card in self.all_cards())

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
        if not isinstance(method, str):
            raise InputError(f"method is {shown(method)}; give a name, or names joined by '+', such as token_recycling or a+b")
        names = tuple(part.strip() for part in method.split("+"))
        if not all(names):
            raise InputError(f"method is '{method}'; write names joined by '+', such as token_recycling or a+b")
        cards = [entry(name).card for name in names]
        _check_seats(cards)
        placed: dict[tuple[str, str], Any] = {}
        for key, value in _named(options).items():
            owner, name = _place(cards, key)
            if (owner, name) in placed:
                raise UnknownOption(
                    f"options '{name}' and '{owner}.{name}' are one, and {shown(placed[owner, name])} and {shown(value)} were "
                    "given; give it once"
                )
            placed[owner, name] = _frozen(value)
        return Recipe(
            tuple(card.name for card in cards), tuple((owner, name, placed[owner, name]) for owner, name in sorted(placed))
        )


def read_method(written: Any) -> tuple[str, dict[str, Any]]:
    """Reads "METHOD:OPTION=VALUE:...", such as "token_recycling:nodes=16", as what `Recipe.of` takes. Raises InputError."""
    method, *assigned = written.split(":") if isinstance(written, str) else [shown(written)]
    options: dict[str, Any] = {}
    for pair in assigned:
        key, equals, value = pair.partition("=")
        if not equals or key in options:
            wrong = f"'{key}' stands twice" if equals else f"'{pair}' is not OPTION=VALUE"
            raise InputError(f"'{written}': {wrong}; write METHOD or METHOD:OPTION=VALUE:...")
        options[key] = option_value(value)
    return method, options


PYTHONS = {"True": True, "False": False, "None": None}


def option_value(written: str) -> Any:
    """An option's value off a command line: JSON where it is JSON, True, False and None as Python spells them, else the text."""
    if written in PYTHONS:
        return PYTHONS[written]
    try:
        return json.loads(written)
    except json.JSONDecodeError:
        return written


def _named(options: Any) -> Mapping[str, Any]:
    if options is None:
        return {}
    if not isinstance(options, Mapping) or not all(isinstance(key, str) for key in options):
        raise InputError(f"options is {shown(options)}; give a mapping of names to values, such as {{'nodes': 32}}")
    return options


def _frozen(value: Any) -> Any:
    """A value that prints, hashes and becomes JSON: numpy's numbers as Python's, lists as tuples."""
    if isinstance(value, Integral) and not isinstance(value, bool):
        return int(value)
    if isinstance(value, Real) and not isinstance(value, bool):
        return float(value)
    return tuple(_frozen(part) for part in value) if isinstance(value, (list, tuple)) else value


def _check_seats(cards: list[Card]) -> None:
    for index, card in enumerate(cards):
        for other in cards[index + 1 :]:
            if card.name == other.name:
                raise CompositionError(f"method '{card.name}' stands twice in the recipe; name it once")
            _check_accept(card, other)
            _check_accept(other, card)
            shared = [seat for seat in card.roles if seat in SINGLE_SEAT and seat in other.roles]
            if shared:
                raise CompositionError(
                    f"'{card.name}' and '{other.name}' both take the single seat '{shared[0]}'; choose one of them"
                )


def _check_accept(card: Card, other: Card) -> None:
    """What takes the place of a drafter's verifier goes with drafters and with what has no verifier."""
    if "accept" in card.roles and "verify" in other.roles and "propose" not in other.roles:
        raise CompositionError(
            f"'{card.name}' decides which drafts are accepted, and '{other.name}' drafts nothing and decides by itself; join "
            f"'{card.name}' with a drafter, such as token_recycling"
        )


def _place(cards: list[Card], key: str) -> tuple[str, str]:
    """The method that an option belongs to, and its name there."""
    owner, dot, name = key.rpartition(".")
    named = [card for card in cards if not dot or card.name == called(owner)]
    holders = [card for card in named if any(option.name == name for option in card.options)]
    if len(holders) > 1:
        raise UnknownOption(f"option '{key}' belongs to {' and '.join(c.name for c in holders)}; write METHOD.{name}")
    if not holders:
        allowed = [f"{card.name}.{option.name}" if len(cards) > 1 else option.name for card in cards for option in card.options]
        raise UnknownOption(f"unknown option '{key}' for {'+'.join(card.name for card in cards)}; {choices(key, allowed)}")
    return holders[0].name, name
