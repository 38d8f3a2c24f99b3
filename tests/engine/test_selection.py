"""Rows that a selector gives up: token time, what is waited for, and the account of a prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest

import treewright as tw
from treewright.core.request import Sampling
from treewright.core.roles import Parts
from treewright.core.selection import Candidate, Scorer
from treewright.core.trace import Call
from treewright.engine.ledger import Account
from treewright.engine.rows import Row
from treewright.models.tables import Table
from treewright.parts.verify.sample_then_match import SampleThenMatch


class Lengths(Table):
    """A model whose samples end where their first token says: token n is followed by n copies of itself and the end, 0."""

    def logits(self, prefix: Sequence[int]) -> np.ndarray:
        new = list(prefix[1:])
        logits = np.full(self.vocabulary, -30.0)
        if not new:
            logits[1:] = 0.0
        else:
            logits[0 if len(new) > new[0] else new[0]] = 30.0
        return logits


class FirstTo:
    """Has enough once `k` candidates have ended; notes what it is asked."""

    hypotheses = False

    def __init__(self, k: int) -> None:
        self.k, self.asked = k, []

    def enough(self, ended: Sequence[Candidate], running: int) -> bool:
        self.asked.append((sorted(len(one.tokens) for one in ended), running))
        return len(ended) >= self.k

    def select(self, prompt: str, candidates: Sequence[Candidate], scorers: Mapping[str, Scorer]) -> list[int]:
        return list(range(len(candidates)))


def decode(play, k: int = 1, samples: int = 1, drafts: int | None = None, **settings):
    selector = FirstTo(k)
    parts = Parts(verify=SampleThenMatch(), select=selector, candidates=6)
    settings = dict(sampling=Sampling(1.0), eos_ids=(0,), max_new_tokens=30, samples=samples, seed=2) | settings
    return play(Lengths(9, seed=0), [[1], [2]], drafts=drafts, parts=parts, **settings), selector


def lengths(engine, prompt: int = 0) -> list[int]:
    return sorted(len(row.tokens) for key, row in engine.finished.items() if key[0] == prompt)


@pytest.mark.parametrize("drafts", [None, 3])
@pytest.mark.parametrize("batch_rows", [1, 4, 32])
def test_the_shortest_are_left_whatever_the_rounds_are(play, drafts, batch_rows):
    everything, _ = decode(play, k=99)
    for k in (1, 2, 3):
        engine, _ = decode(play, k=k, drafts=drafts, batch_rows=batch_rows)
        for prompt in (0, 1):
            assert lengths(engine, prompt)[:k] == lengths(everything, prompt)[:k]


def test_in_lockstep_rows_end_with_the_kth_and_the_account_is_theirs(play):
    everything, _ = decode(play, k=99, batch_rows=32)
    engine, _ = decode(play, k=2, batch_rows=32)
    for prompt in (0, 1):
        full = lengths(everything, prompt)
        end = full[1]
        account = engine.ledger.accounts[prompt]
        assert account.tokens == sum(min(length, end) for length in full) < sum(full) == everything.ledger.accounts[prompt].tokens
        assert account.given_up == sum(length > end for length in full) and everything.ledger.accounts[prompt].given_up == 0
        assert len([call for call in account.calls if call.kind == "score"]) == end
    scored = [call.rows for call in engine.ledger.accounts[0].calls if call.kind == "score"]
    assert scored == sorted(scored, reverse=True), "rows that are given up stop costing"


def test_as_many_as_were_asked_for_are_waited_for(play):
    engine, _ = decode(play, k=1, samples=3, batch_rows=32)
    assert len(lengths(engine)) >= 3


def test_what_is_running_counts_those_that_ended_with_more_tokens(play):
    _, selector = decode(play, k=99, batch_rows=1)
    assert all(len(ended) + running == 6 for ended, running in selector.asked)
    assert any(len(ended) == 1 and running == 5 for ended, running in selector.asked)


def test_given_up_rows_are_forgotten(play):
    engine, _ = decode(play, k=1, batch_rows=32)
    assert engine._memories._rows == {}
    assert set(engine.traces) == set(engine.finished)


def test_an_account_spans_from_the_first_entry_to_the_last_end():
    calls = [Call("target", "score", 1, 1, 0.0) for _ in range(5)]
    account = Account(2, 7.0)
    account.add(Row(0, 1, None, tokens=[1, 2], first_call=2, started=7.0, kept=False), calls[:4], 9.0, beside=False)
    account.add(Row(0, 0, None, tokens=[1], first_call=1, started=6.0), calls, 10.0, beside=False)
    account.add(Row(0, 2, None, tokens=[1, 2, 3], first_call=1, started=6.0), calls, 10.0, beside=True)
    assert (len(account.calls), account.seconds, account.tokens, account.given_up) == (4, 4.0, 3, 1)


def test_what_never_began_is_no_candidate():
    """A sample that a spent budget kept out has probability 1 and no token; it must not win."""
    settings = {"temperature": 1.0, "max_new_tokens": 6, "batch_rows": 1, "budget": {"model_calls": 3}}
    result = tw.generate(Table(4, 1), [1], "best_of_n", {"by": "likelihood", "candidates": 3}, **settings)
    assert result.finish_reason == "budget" and len(result.tokens) == 3
    assert result.trace.notes["selection"]["order"] == [0]


def test_evidence_is_of_rows_that_began():
    def positive(tokens):
        return 0 not in tokens

    settings = {"temperature": 1.0, "max_new_tokens": 4, "n": 8, "constraint": tw.check(positive, reads="tokens")}
    table = Table(4, 1)
    cut = tw.generate(table, [1], "awrs", **settings, batch_rows=2, budget={"model_calls": 4})
    began = [sample.log_weight for sample in cut.samples if sample.tokens]
    assert 0 < len(began) < 8 and min(began) < 0
    assert cut.log_evidence == pytest.approx(np.log(np.mean(np.exp(began))))
