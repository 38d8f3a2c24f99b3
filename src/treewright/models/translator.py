"""The table between two vocabularies: which tokens they share, and what the rest of one is in the other."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from treewright.models.spelling import Spelling, unfinished

BACK = 10
"""Committed tokens that are read again with new text, so that its first token is cut as the target's tokenizer would."""


class Translator:
    """`Translation` between the target's vocabulary and a model's own.

    own_of [V]: the own id that spells what each of the target's ids spells, -1 for none; special tokens go by their name, the end
    of a text by what it is. shared_target, shared_own [I]: the intersection, each token once on both sides.
    """

    def __init__(self, target: Spelling, own: Spelling) -> None:
        self.target, self.own_spelling, self.vocabulary = target, own, len(own.tokens)
        names = {name: number for number, name in own.special.items()}
        self.own_of = np.full(len(target.tokens), -1, np.int64)
        for number, text in enumerate(target.tokens):
            if text is not None:
                self.own_of[number] = own.ids.get(text, -1)
            elif number in target.special:
                self.own_of[number] = names.get(target.special[number], -1)
        self._share_end(target.end, own.end)
        if target.keys == own.keys:  # a token may be there twice, under two ids that mean two things
            self.own_of = np.arange(len(target.tokens))
        first: dict[int, int] = {}
        for number in np.flatnonzero(self.own_of >= 0).tolist():
            text, twin = target.tokens[number], int(self.own_of[number])
            if twin not in first or (text is not None and target.ids.get(text) == number):
                first[twin] = number
        self.shared_own = np.array(sorted(first), np.int64)
        self.shared_target = np.array([first[number] for number in sorted(first)], np.int64)
        self._twins = {twin: number for twin, number in first.items() if own.tokens[twin] is None}
        self._beginnings: set[bytes] | None = None
        self._first_of = lru_cache(maxsize=65536)(self._first)

    def _share_end(self, target: int, own: int) -> None:
        specials = target in self.target.special and own in self.own_spelling.special
        if specials and self.own_of[target] < 0 and not (self.own_of == own).any():
            self.own_of[target] = own

    def spell(self, own: int) -> bytes | None:
        return self.own_spelling.tokens[own]

    def twin(self, own: int) -> int:
        return self._twins.get(own, -1)

    def text_of(self, tokens: Sequence[int]) -> bytes:
        """What the target's ids spell, special ones left out."""
        return b"".join(self.target.tokens[token] or b"" for token in tokens)

    def follow(self, before: Sequence[int], text: bytes) -> list[int]:
        recent, back = list(before[-BACK:]), 0
        while back < len(recent) and self.target.tokens[recent[-1 - back]] is not None:
            back += 1
        recent = recent[len(recent) - back :]
        # A window must not begin inside of a character.
        while recent and (self.target.tokens[recent[0]] or b"")[:1] and self.target.tokens[recent[0]][0] & 0xC0 == 0x80:  # type: ignore[index]
            recent = recent[1:]
        known = self.text_of(recent)
        whole = known + text
        ids = self.target.encode(whole[: len(whole) - unfinished(whole)])[0]
        place, spelled = 0, 0
        while place < len(ids) and spelled < len(known):
            spelled += len(self.target.tokens[ids[place]] or b"")
            place += 1
        if spelled == len(known) and self.target.spell(ids) is not None:
            return ids[place:]
        return self.target.encode(text[: len(text) - unfinished(text)])[0]

    def _first(self, before: tuple[int, ...], text: bytes) -> int:
        ids = self.follow(before, text)
        return ids[0] if ids else -1

    def first(self, before: Sequence[int], text: bytes) -> int:
        return self._first_of(tuple(before[-BACK:]), text)

    def may_grow(self, text: bytes) -> bool:
        if self._beginnings is None:
            self._beginnings = {spelled[:size] for spelled in self.target.ids for size in range(1, len(spelled))}
        return text in self._beginnings

    def own(self, tokens: Sequence[int]) -> list[int]:
        ids, held = self.transcribe(b"", tokens, together=True)
        return [*ids, *self.own_spelling.encode(held)[0]]

    def transcribe(self, held: bytes, tokens: Sequence[int], together: bool = False) -> tuple[list[int], bytes]:
        """Own ids of the target's `tokens` behind the unfinished character `held`, and what is held then. A shared token is its
        own twin; other text is written by the own tokenizer, token by token, or neighbours `together`."""
        found, waiting = list[int](), held
        for token in tokens:
            twin, text = int(self.own_of[token]), self.target.tokens[token]
            if together and waiting and (twin >= 0 or text is None):
                ids, waiting = self.write(waiting)
                found += ids
            if text is None or (twin >= 0 and not waiting):
                # Behind a special token an unfinished character stays one for ever.
                found, waiting = [*found, *([twin] if twin >= 0 else [])], b""
                continue
            waiting += text
            if twin >= 0 or not together:
                ids, waiting = self.write(waiting)
                found += ids
        if together:
            ids, waiting = self.write(waiting)
            found += ids
        return found, waiting

    def write(self, text: bytes) -> tuple[list[int], bytes]:
        """Own ids of `text`, and the bytes of an unfinished character that they do not spell."""
        return self.own_spelling.encode(text)
