"""What a method may ask about a model of another vocabulary: what its ids spell, and how the target's tokenizer reads that."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class Translation(Protocol):
    """Between the ids of a model ("own") and those of the target, by way of the bytes that both spell. vocabulary: how
    many own ids there are."""

    vocabulary: int

    def spell(self, own: int) -> bytes | None:
        """The bytes of an own id; None for a special token, which spells nothing."""

    def twin(self, own: int) -> int:
        """The target's special token that an own special token stands for, -1 if there is none."""

    def follow(self, before: Sequence[int], text: bytes) -> list[int]:
        """The target's ids of `text` behind its ids `before`, as its tokenizer writes them together. `before` never changes:
        where the tokenizer would join across the border, `text` is written alone. An unfinished last character is left out."""

    def first(self, before: Sequence[int], text: bytes) -> int:
        """The first of the ids that `follow` gives, -1 where there is none. Kept, since laws are summed over it."""

    def may_grow(self, text: bytes) -> bool:
        """Whether `text` is only the beginning of some token of the target, so that what follows it decides how it is read."""

    def own(self, tokens: Sequence[int]) -> list[int]:
        """Own ids of the target's ids: a shared token stands for itself, other text is written by the own tokenizer."""
