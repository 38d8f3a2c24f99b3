"""Constraints that are black boxes: a function is asked about one continuation at a time, and there is no mask.

What a function has said is kept, so that rows which spell the same text (particles of one prompt, say) ask once.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable, Collection, Hashable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from llguidance import LLTokenizer

from treewright.core.errors import CompositionError, ConstraintError
from treewright.core.grammar import Check

KEPT = 1 << 14
"""Answers of a function that are kept; the least recently asked go first."""


def needs_sampler(check: Check) -> str:
    """The sentence that refuses a check where masks are asked for."""
    return (
        f"{check} can only be asked about one token at a time, and this method asks which of all tokens may follow; join it "
        "with awrs (method='awrs', or 'token_recycling+awrs')"
    )


class BlackBox:
    """The constraint of a request. checks: one for each prompt, None where a prompt is free. vocabulary: what tokens spell, None
    where all checks read tokens. ends: the ids that end a text."""

    def __init__(self, checks: Sequence[Check | None], vocabulary: LLTokenizer | None, ends: Collection[int], size: int) -> None:
        self._checks, self._vocabulary, self._ends, self._size = checks, vocabulary, frozenset(ends), size
        self._asked: dict[Callable[[Any], bool], Callable[[Any], bool]] = {}
        for check in {check for check in checks if check is not None}:
            for function in {check.function, check.complete} - {None}:
                self._asked[function] = lru_cache(KEPT)(_strict(check, function))  # type: ignore[index, arg-type]

    def mask(self, row: Hashable, continuation: np.ndarray) -> np.ndarray:
        check = self._checks[row[0]]  # type: ignore[index]
        if check is not None:
            raise CompositionError(needs_sampler(check))
        return np.ones(self._size, bool)

    def allowed(self, row: Hashable, continuation: np.ndarray, token: int) -> bool:
        check = self._checks[row[0]]  # type: ignore[index]
        if check is None:
            return True
        tokens = continuation.tolist()
        if self._ends.intersection(tokens):
            return False
        if token in self._ends:
            return self._asked[check.complete or check.function](self._read(check, tokens, ended=True))
        if check.reads != "tokens" and not self._spells(token):
            return False
        return self._asked[check.function](self._read(check, [*tokens, token]))

    def _spells(self, token: int) -> bool:
        """Special tokens, and ids that the tokenizer does not have, never become text."""
        assert self._vocabulary is not None
        return not self._vocabulary.is_special_token(token) and bool(self._vocabulary.decode_bytes([token]))

    def _read(self, check: Check, tokens: list[int], ended: bool = False) -> Hashable:
        if check.reads == "tokens":
            return tuple(tokens)
        assert self._vocabulary is not None
        spelled = self._vocabulary.decode_bytes(tokens)
        # Bytes of a character that is not whole yet are held back; the character may still become any of several. At the end
        # they stand as U+FFFD in the text, so the function sees them there.
        return spelled if check.reads == "bytes" else codecs.getincrementaldecoder("utf-8")("replace").decode(spelled, ended)


def _strict(check: Check, function: Callable[[Any], bool]) -> Callable[[Any], bool]:
    """The function, with what it does wrong said in a sentence."""

    def ask(continuation: Any) -> bool:
        try:
            answer = function(continuation)
        except Exception as error:
            raise ConstraintError(
                f"{check} raised {type(error).__name__} ({error}) for {continuation!r}; return False for what is not allowed"
            ) from error
        if not isinstance(answer, (bool, np.bool_)):
            raise ConstraintError(f"{check} returned {answer!r} for {continuation!r}; return True or False")
        return bool(answer)

    return ask
