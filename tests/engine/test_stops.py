"""What ends a row, and that nothing behind the end is ever seen by anyone."""

from __future__ import annotations

import pytest

from treewright.core.claims import ABSENT
from treewright.core.request import Budget, Request, Sampling
from treewright.engine.rows import Row

STORY = "Der Hänsel aß 3 Äpfel. ENDE und aus. Schluß".encode()


def text_of(engine, toys, prompt: int = 0, sample: int = 0) -> str:
    return engine.finished[prompt, sample].spell(toys.spell, engine._request)


@pytest.mark.parametrize("drafts", [None, 1, 4, 9])
def test_an_end_of_text_id_ends_the_row_and_is_its_last_token(play, toys, drafts: int | None) -> None:
    model, end = toys.Scripted({1: STORY}), STORY.index(b".")
    for ids in (dict(eos_ids=(ord("."),)), dict(stop_ids=(7, ord(".")))):
        notes = toys.Notes()
        engine = play(model, [[1]], drafts=drafts, notes=notes, decode=toys.spell, **ids)
        row = engine.finished[0, 0]
        assert bytes(row.tokens) == STORY[: end + 1] and row.finish == "stop"
        assert text_of(engine, toys) == STORY[:end].decode() == "".join(notes.pieces[0, 0])
        assert notes.emitted[0, 0] == row.tokens == notes.tokens[0, 0]
        unheard = play(model, [[1]], drafts=drafts, decode=toys.spell, **ids)
        assert text_of(unheard, toys) == STORY[:end].decode(), "the text is the same where nobody listens"


@pytest.mark.parametrize("drafts", [None, 4])
def test_ignored_ends_are_text(play, toys, drafts: int | None) -> None:
    model = toys.Scripted({1: STORY})
    engine = play(model, [[1]], drafts=drafts, eos_ids=(ord("."),), ignore_eos=True, min_new_tokens=30, max_new_tokens=36)
    assert bytes(engine.finished[0, 0].tokens) == STORY[:36] and engine.finished[0, 0].finish == "length"
    stopped = play(model, [[1]], drafts=drafts, eos_ids=(ord("."),), ignore_eos=True, stop_ids=(ord("3"),))
    assert bytes(stopped.finished[0, 0].tokens) == STORY[: STORY.index(b"3") + 1]


@pytest.mark.parametrize("drafts", [None, 2, 7])
@pytest.mark.parametrize("stops", [("ENDE",), ("nix", " ENDE u"), ("Äpfel", "aß"), ("E",), ("l. E", "ENDE")], ids=str)
def test_text_ends_before_a_stop_string(play, toys, drafts: int | None, stops: tuple[str, ...]) -> None:
    notes, text = toys.Notes(), STORY.decode()
    engine = play(toys.Scripted({1: STORY}), [[1]], drafts=drafts, notes=notes, decode=toys.spell, stop=stops)
    first = min((text.index(stop) + len(stop), text.index(stop)) for stop in stops if stop in text)
    row = engine.finished[0, 0]
    assert row.finish == "stop" and text_of(engine, toys) == text[: first[1]]
    assert bytes(row.tokens) == text[: first[0]].encode(), "tokens end with the one that completed the stop"
    assert "".join(notes.pieces[0, 0]) == text[: first[1]] and "\ufffd" not in "".join(notes.pieces[0, 0])
    assert notes.emitted[0, 0] == row.tokens


@pytest.mark.parametrize("drafts", [None, 3, 60])
def test_pieces_never_hold_half_a_character_or_part_of_a_stop(play, toys, drafts: int | None) -> None:
    text = "añb 猫🎈 STOpped STO STÖP STOP never"
    notes = toys.Notes()
    engine = play(toys.Scripted({1: text.encode()}), [[1]], drafts=drafts, notes=notes, decode=toys.spell, stop=("STOP",))
    told = ""
    for piece in notes.pieces[0, 0]:
        told += piece
        assert "\ufffd" not in told and text[: text.index("STOP")].startswith(told)
    assert told == text[: text.index("STOP")] == text_of(engine, toys)


def test_what_was_held_back_comes_when_the_row_ends_without_the_stop(play, toys) -> None:
    for reason, settings in {
        "length": dict(max_new_tokens=6),
        "budget": dict(budget=Budget(model_calls=6)),
        "stop": dict(stop_ids=(ord("r"),)),
    }.items():
        notes = toys.Notes()
        play(toys.Scripted({1: b"no STOrm"}), [[1]], notes=notes, decode=toys.spell, stop=("STOP",), **settings)
        assert "".join(notes.pieces[0, 0]) == "no STO"[: None if reason != "stop" else 6]
        assert notes.ended == [(0, 0)]


def test_a_character_that_never_comes_to_its_end_is_given_as_a_replacement(play, toys) -> None:
    notes = toys.Notes()
    engine = play(toys.Scripted({1: "ab猫".encode()[:-1]}), [[1]], notes=notes, decode=toys.spell, max_new_tokens=4)
    assert "".join(notes.pieces[0, 0]) == "ab\ufffd" == text_of(engine, toys)
    assert notes.pieces[0, 0][:3] == ["a", "b", ""]


@pytest.mark.parametrize("drafts", [None, 5])
def test_no_stop_counts_before_the_least_number_of_tokens(play, toys, drafts: int | None) -> None:
    text = b"one. two. three. four."
    model = toys.Scripted({1: text})
    notes = toys.Notes()
    engine = play(model, [[1]], drafts=drafts, notes=notes, decode=toys.spell, stop=(". ",), min_new_tokens=8)
    assert text_of(engine, toys) == "one. two" == "".join(notes.pieces[0, 0])
    assert engine.finished[0, 0].tokens == list(b"one. two. ")
    # An id that would end the row is not drawn before; here the next best of the law is byte 0.
    engine = play(model, [[1]], drafts=drafts, stop_ids=(ord("."),), min_new_tokens=8)
    assert bytes(engine.finished[0, 0].tokens) == b"one\0 two."


def test_ends_that_a_verifier_emits_too_early_are_text() -> None:
    """The law never draws them, but a verifier that is not bound to it may."""
    row = Row(0, 0, None)
    request = Request(prompts=((1,),), min_new_tokens=3, stop_ids=(5,))
    assert row.accept([5, 5], request, 10) == [5, 5] and row.finish is None
    assert row.accept([5, 5], request, 10) == [5] and row.finish == "stop"


def test_lengths_end_rows_of_a_ragged_batch(play, toys) -> None:
    model = toys.Scripted({1: b"short.", 2: b"rather a long sentence", 3: b"mid"})
    engine = play(model, [[1], [2], [3]], drafts=4, stop_ids=(ord("."),), max_new_tokens=9)
    assert [engine.finished[prompt, 0].finish for prompt in range(3)] == ["stop", "length", "length"]
    assert [bytes(engine.finished[prompt, 0].tokens) for prompt in range(3)] == [b"short.", b"rather a ", b"mid\0\0\0\0\0\0"]


@pytest.mark.parametrize("drafts", [None, 6])
def test_observers_see_the_verdict_as_truncated(play, toys, drafts: int | None) -> None:
    notes = toys.Notes()
    settings = dict(drafts=drafts, decode=toys.spell, stop=("aß",), max_new_tokens=30)
    engine = play(toys.Scripted({1: STORY}), [[1]], notes=notes, **settings)
    tokens = engine.finished[0, 0].tokens
    place = 0
    for outcome, step in zip(notes.outcomes, engine.traces[0, 0].steps, strict=True):
        claimed = [int(outcome.round.forest.token[0, column]) for column in outcome.verdict.paths[0]]
        extra = [outcome.verdict.extra[0]] if outcome.verdict.extra[0] >= 0 else []
        assert claimed + extra == outcome.emitted[0] == step.emitted == tokens[place : place + len(step.emitted)]
        assert step.accepted == outcome.verdict.paths[0]
        place += len(step.emitted)
    assert place == len(tokens)
    assert notes.text[0, 0] == [1, *tokens], "the text holds nothing that was cut off"


def test_claims_that_could_not_become_text_are_absent_row_by_row(play, toys) -> None:
    engine = play(toys.Scripted({1: b"abcdefghijklmn", 2: b"n"}), [[1], [2, 2]], drafts=6, max_new_tokens=9)
    for trace in engine.traces.values():
        room = 9
        for step in trace.steps:
            # A chain, so a claim's column is its depth; the bonus token takes the last place.
            assert [token != ABSENT for token in step.token] == [depth < room for depth in range(8)]
            room -= len(step.emitted)
        assert room == 0


def test_penalties_do_not_see_what_was_cut_off(play, toys) -> None:
    """A row that shares the batch with one that has stopped goes on as if that one had never been there."""
    model = toys.Scripted({1: b"stop.xxxxxx", 2: b"go on and on"})
    settings = dict(drafts=5, stop_ids=(ord("."),), max_new_tokens=12, sampling=Sampling(0.0, repetition_penalty=1.1))
    assert play(model, [[1], [2]], **settings).finished[1, 0].tokens == play(model, [[2]], **settings).finished[0, 0].tokens
