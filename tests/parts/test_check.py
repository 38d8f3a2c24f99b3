"""Black boxes: what a function is shown, what it is asked, and what it may not do."""

from __future__ import annotations

import numpy as np
import pytest

from treewright.core.errors import CompositionError, ConstraintError
from treewright.core.grammar import Check, check, regex
from treewright.parts.constrain.check import BlackBox

TOKENS = [b"a", b"\xc3", b"\xa9", b"b", b"", b"<end>", b"<pad>"]
END, PAD = 5, 6


class Spelling:
    """The two questions that are asked of llguidance's vocabulary."""

    def is_special_token(self, token: int) -> bool:
        return token in (END, PAD)

    def decode_bytes(self, tokens: list[int]) -> bytes:
        return b"".join(TOKENS[token] for token in tokens)


def ask(given: Check, tokens: list[int], token: int) -> bool:
    box = BlackBox([None, given], Spelling(), (END,), len(TOKENS))  # type: ignore[arg-type]
    return box.allowed((1, 0), np.array(tokens, np.int64), token)


def shown(reads: str, tokens: list[int], token: int) -> list:
    seen = []
    ask(check(lambda continuation: bool(seen.append(continuation)) or True, reads=reads), tokens, token)  # type: ignore[arg-type]
    return seen


def test_text_is_shown_up_to_its_last_whole_character():
    assert shown("text", [0], 1) == ["a"] and shown("text", [0, 1], 2) == ["aé"]
    assert shown("text", [0], 2) == ["a\N{REPLACEMENT CHARACTER}"]


def test_bytes_and_tokens_are_shown_as_they_are():
    assert shown("bytes", [0], 1) == [b"a\xc3"]
    assert shown("tokens", [0], PAD) == [(0, PAD)]


def test_what_spells_nothing_never_passes_where_text_is_read():
    assert shown("text", [0], PAD) == shown("bytes", [0], PAD) == shown("bytes", [0], 4) == []
    assert not ask(check(lambda text: True), [0], PAD)


@pytest.mark.parametrize("reads", ["text", "tokens"])
def test_the_end_asks_whether_the_text_is_complete_and_nothing_follows_it(reads):
    whole = check(lambda text: True, lambda text: len(text) == 2, reads=reads)
    assert not ask(whole, [0], END) and ask(whole, [0, 3], END) and not ask(whole, [0, 3, END], 0)
    begun = check(lambda text: len(text) < 2, reads=reads)
    assert ask(begun, [0], END) and not ask(begun, [0, 3], END)


def test_a_free_prompt_is_free_and_a_checked_one_has_no_mask():
    box = BlackBox([None, check(str.isalpha)], Spelling(), (END,), len(TOKENS))  # type: ignore[arg-type]
    assert box.mask((0, 3), np.array([0])).all() and box.allowed((0, 3), np.array([0]), PAD)
    with pytest.raises(CompositionError, match=r"check isalpha can only be asked about one token at a time.*awrs"):
        box.mask((1, 0), np.array([0]))


def test_one_text_is_asked_once():
    seen: list[str] = []
    box = BlackBox([check(lambda text: bool(seen.append(text)) or True)], Spelling(), (END,), len(TOKENS))  # type: ignore[arg-type]
    for row in range(3):
        assert box.allowed((0, row), np.array([0]), 3)
    assert seen == ["ab"]


def test_a_function_that_answers_nothing_or_fails_is_named():
    with pytest.raises(ConstraintError, match="check print returned None for 'ab'; return True or False"):
        ask(check(print), [0], 3)
    with pytest.raises(ConstraintError, match=r"check int raised ValueError .* for 'ab'; return False"):
        ask(check(int), [0], 3)


@pytest.mark.parametrize(
    ("make", "fault"),
    [
        (lambda: check("a+"), "check function is 'a\\+'; give a function"),
        (lambda: check(bool, "a+"), "check complete is 'a\\+'"),
        (lambda: check(bool, reads="words"), "check reads is 'words'; allowed: text, bytes, tokens"),
        (lambda: check(bool, within="a+"), "check within is 'a\\+'; give what json_schema"),
    ],
)  # fmt: skip
def test_what_is_no_check_is_refused(make, fault):
    with pytest.raises(ConstraintError, match=fault):
        make()


def test_a_check_is_plain_data():
    assert check(bool, within=regex("a")) == check(bool, within=regex("a")) and hash(check(bool)) == hash(check(bool))
