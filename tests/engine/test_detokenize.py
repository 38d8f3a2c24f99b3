"""Text streams, over random bytes and random stop strings."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from treewright.engine.detokenize import TextStream, continuation_text


def spell(ids: list[int]) -> str:
    return bytes(ids).decode("utf-8", errors="replace")


def first_stop(text: str, stops: list[str]) -> int | None:
    """Where the text is cut: before the stop that is completed first, the longest of those."""
    for end in range(1, len(text) + 1):
        starts = [end - len(stop) for stop in stops if text[:end].endswith(stop)]
        if starts:
            return min(starts)
    return None


TEXT = st.text(alphabet="abß猫🎈 ", max_size=25)
STOPS = st.lists(st.text(alphabet="abß猫", min_size=1, max_size=3), max_size=3)


@given(prompt=TEXT, text=TEXT, stops=STOPS, blocks=st.lists(st.integers(1, 6), min_size=1))
@settings(max_examples=300, deadline=None)
def test_pieces_join_to_the_text_before_the_first_stop(prompt: str, text: str, stops: list[str], blocks: list[int]) -> None:
    stream = TextStream(spell, prompt.encode(), stops)
    ids, told, stopped = list(text.encode()), "", False
    cut = first_stop(text, stops)
    wanted = text[:cut]
    for place in range(len(ids)):
        for token in [ids.pop(0) for _ in range(min(len(ids), blocks[place % len(blocks)]))]:
            stopped = stopped or stream.push(token)
            if stopped:
                break
        told += stream.release()
        assert wanted.startswith(told)
        if stopped or not ids:
            break
    told += stream.close()
    assert told == wanted == stream.text
    assert stopped == (cut is not None)


BYTES = st.lists(st.sampled_from([*b"ab ", *"ß猫🎈".encode(), 0xFF]), max_size=14).map(bytes)


@given(prompt=BYTES, ids=BYTES)
@settings(max_examples=500, deadline=None)
def test_any_bytes_give_the_same_text_at_once_and_token_by_token(prompt: bytes, ids: bytes) -> None:
    stream = TextStream(spell, prompt, ())
    for token in ids:
        stream.push(token)
    stream.close()
    assert stream.text == continuation_text(spell, prompt, ids)


@pytest.mark.parametrize(("free", "ends", "text"), [(0, 1, "a"), (2, 4, "abca"), (5, None, "abcabc")])
def test_stops_that_may_not_stop_are_text(free: int, ends: int | None, text: str) -> None:
    """The first `free` tokens may not end the text."""
    stream = TextStream(spell, b"", ["b"])
    ended = (place for place, token in enumerate(b"abcabc") if stream.push(token, place >= free))
    assert next(ended, None) == ends
    stream.close()
    assert stream.text == text


def test_a_fork_goes_its_own_way() -> None:
    stream = TextStream(spell, b"", ["STOP"])
    for token in "aé ST".encode():
        stream.push(token)
    fork = stream.fork()
    assert [fork.push(token) for token in b"OP"] == [False, True]
    stream.push(ord("!"))
    assert (stream.release() + stream.close(), fork.release() + fork.close()) == ("aé ST!", "aé ")
