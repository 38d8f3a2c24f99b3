"""A vocabulary of seven tokens, some of several bytes, so that grammars can be put over exact tables."""

from __future__ import annotations

from functools import cache
from typing import ClassVar

from llguidance import LLTokenizer, TokenizerWrapper

TOKENS = (b"a", b"b", b"ab", b'{"a":', b"1", b"}", b"<end>")
END = len(TOKENS) - 1


class Spelling:
    """What llguidance asks of a tokenizer; text is read greedily, the longest token first."""

    eos_token_id = bos_token_id = END
    special_token_ids = (END,)
    tokens: ClassVar = list(TOKENS)

    def __call__(self, text: str | bytes) -> list[int]:
        rest, found = text.encode() if isinstance(text, str) else text, []
        while rest:
            token = max((token for token in TOKENS if rest.startswith(token)), key=len, default=None)
            if token is None:
                raise ValueError(f"no token spells {rest!r}")
            found.append(TOKENS.index(token))
            rest = rest[len(token) :]
        return found


@cache
def toy_vocabulary() -> LLTokenizer:
    """The seven tokens as grammars are compiled for them."""
    return LLTokenizer(TokenizerWrapper(Spelling()), n_vocab=len(TOKENS), eos_token=END, slices=[])
