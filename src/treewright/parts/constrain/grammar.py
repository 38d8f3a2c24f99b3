"""Grammars as masks over a model's vocabulary, computed by llguidance.

A mask says for each token whether the text after the prompt, that token appended, can still become a text of the grammar;
the end of text is allowed where the text is complete. All spellings of a text are allowed alike (no forcing), so the law is
that of plain decoding with the forbidden tokens left out at every step. It is not the model's law conditioned on the
grammar: early tokens know nothing of what is forbidden later.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from llguidance import LLMatcher, LLTokenizer
from llguidance.hf import from_tokenizer

from treewright.core.errors import ConstraintError
from treewright.core.grammar import Grammar


@lru_cache(maxsize=4)
def vocabulary_of(tokenizer: Any, size: int, ends: tuple[int, ...]) -> LLTokenizer:
    """The bytes of a transformers tokenizer's tokens, for a model of `size` logits whose texts end with one of `ends`.

    Raises ConstraintError for a tokenizer whose tokens have no bytes of their own (not a fast one), or without an end.
    """
    if not ends:
        raise ConstraintError(
            "the model has no end-of-text id, so no constrained text could end; set generation_config.eos_token_id"
        )
    if len(tokenizer) > size:
        raise ConstraintError(
            f"the tokenizer has {len(tokenizer)} tokens and the model only {size}; give the model's own tokenizer"
        )
    try:
        return from_tokenizer(tokenizer, n_vocab=size, eos_token=list(ends))
    except ValueError as error:
        raise ConstraintError(
            f"a constraint needs a fast tokenizer, and this is a {type(tokenizer).__name__} ({error})"
        ) from error


def compile_grammar(grammar: Grammar, vocabulary: LLTokenizer) -> LLMatcher:
    """A grammar over a vocabulary, at its first token.

    Raises ConstraintError where the grammar is malformed, uses what llguidance does not know, or allows no text.
    """
    matcher = LLMatcher(vocabulary, grammar.lark)
    if matcher.is_error():
        raise ConstraintError(f"{grammar} cannot be used: {_reason(matcher.get_error())}")
    if _mask(matcher) is None:
        raise ConstraintError(f"{grammar} allows no text in this model's vocabulary; give one that some text fits")
    return matcher


def _mask(matcher: LLMatcher) -> np.ndarray | None:
    """The tokens that may follow, [V or more] bool; None where the grammar is not complete and no token leads on, or where
    llguidance came to a limit of its own: states that no rollback leaves."""
    bias = np.frombuffer(matcher.compute_logit_bias(), np.uint8) > 0
    return None if matcher.is_error() or (matcher.is_stopped() and not matcher.is_accepting()) else bias


def _reason(error: str) -> str:
    """The first lines of llguidance's message without the place in a grammar that the user may never have seen."""
    sentence = " ".join(error.split("\n   1 |")[0].split())
    _, marked, rest = sentence.partition("): ")
    return (rest if marked else sentence).rstrip(".")


class GrammarMasks:
    """The constraint of a request. matchers: one for each prompt, at its first token, None where a prompt is free.

    States follow each row: a question about another continuation rolls back to what it shares with the last one. One token
    costs its own bytes, a mask a walk over the vocabulary.
    """

    def __init__(self, matchers: Sequence[LLMatcher | None], ends: Sequence[int], vocabulary: int) -> None:
        self._matchers, self._ends, self._vocabulary = matchers, set(ends), vocabulary
        self._states: dict[Hashable, tuple[LLMatcher, list[int]]] = {}

    def mask(self, row: Hashable, continuation: np.ndarray) -> np.ndarray:
        if self._matchers[row[0]] is None:  # type: ignore[index]
            return np.ones(self._vocabulary, bool)
        matcher = self._matcher_at(row, continuation.tolist())
        allowed = None if matcher is None else _mask(matcher)
        if allowed is None:
            self._states.pop(row, None)
            return np.zeros(self._vocabulary, bool)
        return allowed[: self._vocabulary]

    def allowed(self, row: Hashable, continuation: np.ndarray, token: int) -> bool:
        if self._matchers[row[0]] is None:  # type: ignore[index]
            return True
        matcher = self._matcher_at(row, continuation.tolist())
        if matcher is None:
            return False
        # A matcher that is complete and knows no way on has stopped, and then refuses even the end.
        fits = matcher.is_accepting() if token in self._ends else matcher.validate_tokens([token]) == 1
        if matcher.is_error():
            del self._states[row]
        return fits

    def _matcher_at(self, row: Hashable, tokens: list[int]) -> LLMatcher | None:
        """The row's matcher after these tokens; None after an end, and where llguidance came to a limit of its own."""
        if self._ends.intersection(tokens):
            return None
        if row not in self._states:
            self._states[row] = self._matchers[row[0]].deep_copy(), []  # type: ignore[index, union-attr]
        matcher, held = self._states[row]
        shared = next((i for i, (a, b) in enumerate(zip(held, tokens, strict=False)) if a != b), min(len(held), len(tokens)))
        if shared < len(held):
            matcher.rollback(len(held) - shared)
            del held[shared:]
        read = matcher.consume_tokens(tokens[shared:])
        if not read and not matcher.is_error():
            raise ConstraintError(
                f"row {row} holds tokens {tokens[shared:]} that its constraint forbids; this is a fault of ours"
            )
        held += tokens[shared:]
        if not read:
            del self._states[row]
            return None
        return matcher
