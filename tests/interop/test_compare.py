"""tw.compare: honest rows, checked before anything runs."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

import treewright as tw
from treewright.core.errors import CapabilityError, InputError, UnknownMethod, UnknownOption
from treewright.interop import peers
from treewright.models.tables import Table

PROMPT = [2, 5, 9, 4, 5, 9]
AGAINST = ["transformers", "transformers:prompt_lookup", "transformers:assisted"]


@pytest.fixture(scope="module")
def target(network: Any) -> Any:
    return tw.load(network("llama"))


@pytest.fixture(scope="module")
def draft(network: Any) -> Any:
    return tw.load(network("llama", shaken=0.02))


def test_rows(target: Any, draft: Any) -> None:
    methods = ["token_recycling", "speculative_sampling"]
    rows = tw.compare(target, PROMPT, methods, against=AGAINST, models={"draft": draft}, repeats=2, max_new_tokens=30)
    assert [row.method for row in rows] == ["plain", *methods, *AGAINST]
    expected = tuple(tw.generate(target, PROMPT, max_new_tokens=30).tokens)
    for row in rows:
        assert row.tokens == expected and row.equal and row.note == ""
        assert row.tokens_per_call == pytest.approx(30 / row.model_calls)
        assert row.ratio_to_plain == pytest.approx(rows[0].seconds / row.seconds)
        assert row.ratio_to_peer == pytest.approx(rows[3].seconds / row.seconds)
        assert (row.trace is None) == (row.method in AGAINST)
    assert rows[0].model_calls == rows[3].model_calls == 30
    assert all(row.model_calls < 30 for row in (*rows[1:3], *rows[4:]))


def test_nothing_learned_is_carried_over(target: Any) -> None:
    """The matrix of token_recycling would know this text by heart from the first run on."""
    one, two = (tw.compare(target, PROMPT, ["token_recycling"], max_new_tokens=30, repeats=n)[1] for n in (1, 3))
    assert one.model_calls == two.model_calls > 1
    tw.generate(target, PROMPT, method="token_recycling", max_new_tokens=30)
    learned = tw.generate(target, PROMPT, method="token_recycling", max_new_tokens=30).trace.model_calls
    assert learned < tw.compare(target, PROMPT, ["token_recycling"], max_new_tokens=30, repeats=1)[1].model_calls


def test_a_law_of_its_own_is_no_divergence_to_explain(target: Any, draft: Any) -> None:
    rows = tw.compare(target, PROMPT, ["momentum", "beam"], repeats=1, max_new_tokens=30)
    for row in rows[1:]:
        assert row.identical == (row.tokens == rows[0].tokens)
        assert row.identical or ("another" in row.note and "law" in row.note)
    assert not all(row.identical for row in rows[1:])


def test_sampling_repeats_plains_tokens(target: Any) -> None:
    rows = tw.compare(
        target, PROMPT, ["token_recycling"], against=["transformers"], temperature=1.0, seed=3, repeats=1, max_new_tokens=30
    )
    assert rows[1].equal and rows[1].tokens == rows[0].tokens
    assert not rows[2].equal and "draw other tokens from the same law" in rows[2].note


def test_a_wrong_text_is_unequal(target: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(model: Any, prompts: Any, settings: Any) -> peers.PeerRun:
        run = peers.transformers_generate(model, prompts, settings)
        changed = [*run.tokens[0][:7], (run.tokens[0][7] + 1) % 24, *run.tokens[0][8:]]
        return dataclasses.replace(run, tokens=[changed])

    monkeypatch.setattr("treewright.interop.compare.PEERS", {"transformers": wrong})
    row = tw.compare(target, PROMPT, ["plain"], against=["transformers"], repeats=1, max_new_tokens=12)[1]
    assert not row.equal
    assert row.note.startswith("differs at new token 7")


def test_turns_are_taken_round_robin(target: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []

    def heard(name: str) -> Any:
        def run(model: Any, prompts: Any, settings: Any) -> peers.PeerRun:
            order.append(name)
            return peers.PeerRun([[1, 2]], 0.5 + order.count(name), 2, 1)

        return run

    monkeypatch.setattr("treewright.interop.compare.PEERS", {name: heard(name) for name in AGAINST[:2]})
    rows = tw.compare(target, PROMPT, ["plain"], against=AGAINST[:2], repeats=3, max_new_tokens=2)
    assert order == AGAINST[:2] * 4
    assert rows[1].seconds == 3.5, "the median of the timed runs, 2.5, 3.5 and 4.5, without the first of all"


def test_ignore_eos_and_options(network: Any) -> None:
    model = tw.load(network("llama"))
    free = tw.generate(model, PROMPT, max_new_tokens=20).tokens
    model.model.generation_config.eos_token_id = free[5]
    ended = tw.compare(model, PROMPT, ["token_recycling"], against=["transformers"], repeats=1, max_new_tokens=20)
    assert {row.tokens for row in ended} == {tuple(free[: free.index(free[5]) + 1])}
    whole = tw.compare(
        model, PROMPT, ["token_recycling"], against=["transformers"], repeats=1, max_new_tokens=20, ignore_eos=True,
        options={"token_recycling": {"nodes": 3}},
    )  # fmt: skip
    assert {row.tokens for row in whole} == {tuple(free)}
    assert whole[1].trace is not None
    assert max(len(step.token) for step in whole[1].trace.steps) <= 4


def test_errors_come_before_any_forward(target: Any, draft: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*arguments: Any, **keywords: Any) -> None:
        raise AssertionError("a forward ran")

    monkeypatch.setattr(target.model, "forward", never)
    cases: list[tuple[Any, type[Exception], str]] = [
        ({"methods": []}, InputError, "methods is"),
        ({"methods": "plain"}, InputError, "lists of names"),
        ({"methods": ["token_recyclin"]}, UnknownMethod, "did you mean 'token_recycling'"),
        ({"methods": ["plain"], "against": ["vllm"]}, InputError, "unknown peer 'vllm'"),
        ({"methods": ["plain"], "repeats": 0}, InputError, "repeats is 0"),
        ({"methods": ["plain"], "max_new_tokens": 0}, InputError, "max_new_tokens is 0"),
        ({"methods": ["speculative_sampling"]}, InputError, "role 'draft'"),
        ({"methods": ["plain"], "against": ["transformers:assisted"]}, InputError, "role 'draft'"),
        ({"methods": ["plain"], "models": {"draft": draft}}, InputError, "role 'draft'; roles used: none"),
        ({"methods": ["plain"], "options": {"jacobi": {}}}, InputError, "'jacobi', which is not compared"),
        ({"methods": ["token_recycling"], "options": {"token_recycling": {"nods": 3}}}, UnknownOption, "nods"),
    ]
    for given, kind, words in cases:
        with pytest.raises(kind, match=words):
            tw.compare(target, PROMPT, **given)


def test_a_table_has_no_peer() -> None:
    rows = tw.compare(tw.load(Table(6, 0)), [1, 2], ["token_recycling"], repeats=1, max_new_tokens=8)
    assert rows[1].equal
    with pytest.raises(CapabilityError, match="peers need transformers models"):
        tw.compare(tw.load(Table(6, 0)), [1, 2], ["plain"], against=["transformers"], repeats=1, max_new_tokens=8)
