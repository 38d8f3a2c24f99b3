"""A vocabulary of a few tokens, some of several bytes, so that languages can be checked by brute force."""

from __future__ import annotations

import pytest
from llguidance import LLTokenizer, TokenizerWrapper

TOKENS = [b"a", b"b", b"ab", b'{"a":', b"1", b"}", b"<end>"]
END = len(TOKENS) - 1


class Spelling:
    """What llguidance asks of a tokenizer; text is read greedily, the longest token first."""

    eos_token_id = bos_token_id = END
    special_token_ids = (END,)
    tokens = TOKENS

    def __call__(self, text: str | bytes) -> list[int]:
        rest, found = text.encode() if isinstance(text, str) else text, []
        while rest:
            token = max((t for t in TOKENS if rest.startswith(t)), key=len, default=None)
            if token is None:
                raise ValueError(f"no token spells {rest!r}")
            found.append(TOKENS.index(token))
            rest = rest[len(token) :]
        return found


@pytest.fixture(scope="session")
def vocabulary() -> LLTokenizer:
    return LLTokenizer(TokenizerWrapper(Spelling()), n_vocab=len(TOKENS), eos_token=END, slices=[])


@pytest.fixture(scope="session")
def tokens() -> list[bytes]:
    return TOKENS
