"""Text out of tokens as they come: never half a character, never a piece of a stop string."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

Decode = Callable[[list[int]], str]
CONTEXT = 4
UNFINISHED = "\ufffd"


def continuation_text(decode: Decode, prompt: Sequence[int], tokens: Sequence[int]) -> str:
    """What `tokens` spell after `prompt`: the text a `TextStream` would give, in two decodings."""
    tail = list(prompt[-CONTEXT:])
    return decode([*tail, *tokens])[len(decode(tail)) :]


class TextStream:
    """The text of one row's continuation.

    Tokens are decoded together with a few before them, so that tokenizers which write a space only between words, or
    spread one character over several tokens, give the text they would give for the whole.
    """

    def __init__(self, decode: Decode, prompt: Sequence[int], stops: Sequence[str]) -> None:
        self._decode, self._stops = decode, tuple(stops)
        self._ids = list(prompt[-CONTEXT:])
        self._begin, self._read = 0, len(self._ids)
        self._text = ""
        self._given = 0
        self._stopped = False

    def push(self, token: int, may_stop: bool = True) -> bool:
        """Takes one token; True if it completes a stop string, which then ends the text just before it. With `may_stop`
        False, stop strings that this token completes are ordinary text."""
        self._ids.append(token)
        before = self._decode(self._ids[self._begin : self._read])
        after = self._decode(self._ids[self._begin :])
        if after.endswith(UNFINISHED) or len(after) <= len(before):
            return False
        self._advance(after[len(before) :], may_stop)
        return self._stopped

    def fork(self) -> TextStream:
        """A copy that continues on its own."""
        other = copy.copy(self)
        other._ids = list(self._ids)
        return other

    def _advance(self, piece: str, may_stop: bool) -> None:
        searched = len(self._text)
        self._text += piece
        self._begin, self._read = self._read, len(self._ids)
        if not may_stop:
            return
        found = [self._text.find(stop, max(0, searched - len(stop) + 1)) for stop in self._stops]
        cuts = [index for index in found if index >= 0]
        if cuts:
            self._text, self._stopped = self._text[: min(cuts)], True

    def release(self) -> str:
        """The text that is new since the last call and can no longer become part of a stop string."""
        safe = len(self._text) if self._stopped else len(self._text) - self._held_back()
        piece = self._text[self._given : safe]
        self._given = max(self._given, safe)
        return piece

    def _held_back(self) -> int:
        longest = max((len(stop) - 1 for stop in self._stops), default=0)
        for size in range(min(longest, len(self._text)), 0, -1):
            tail = self._text[-size:]
            if any(stop.startswith(tail) for stop in self._stops):
                return size
        return 0

    def close(self) -> str:
        """The last piece: what was held back, and bytes that never became a character, unless a stop string ended it."""
        if not self._stopped:
            before = self._decode(self._ids[self._begin : self._read])
            after = self._decode(self._ids[self._begin :])
            self._advance(after[len(before) :], may_stop=True)
        piece = self._text[self._given :]
        self._given = len(self._text)
        return piece

    @property
    def text(self) -> str:
        """All text so far, cut before a stop string."""
        return self._text
