"""Verdicts that fork rows: each slot goes on with the text, the stream, the trace and the weight of the row it continues."""

from __future__ import annotations

import pytest

from treewright.core.request import Sampling
from treewright.core.roles import Parts, Round, TargetLaw, Verdict
from treewright.models.tables import Table
from treewright.parts.verify.sample_then_match import SampleThenMatch


class Shuffle(SampleThenMatch):
    """Walks as plain decoding does, then lets every row continue another one, and weighs each token by its number."""

    def __init__(self, moves: list[list[int]]) -> None:
        self.moves = moves

    def verify(self, round: Round, law: TargetLaw) -> Verdict:
        verdict = super().verify(round, law)
        verdict.rows = self.moves[round.number % len(self.moves)][: round.rows]
        verdict.paths = [list(verdict.paths[row]) for row in verdict.rows]
        verdict.extra = [verdict.extra[row] for row in verdict.rows]
        claims = [[round.forest.token[source, c] for c in path] for source, path in zip(verdict.rows, verdict.paths, strict=True)]
        verdict.log_weight = [[float(t) for t in [*tokens, extra]] for tokens, extra in zip(claims, verdict.extra, strict=True)]
        return verdict


MOVES = [[0, 0, 2, 2], [3, 2, 1, 0], [1, 1, 1, 3], [0, 1, 2, 3]]


@pytest.mark.parametrize("drafts", [None, 3])
def test_a_slot_continues_everything_of_its_source(play, toys, drafts: int | None) -> None:
    def spell(ids: list[int]) -> str:
        return toys.spell([32 + token for token in ids])

    table = Table(60, seed=1, order=2, sharpness=2.0)
    engine = play(
        table, [[1, 2]], drafts=drafts, parts=Parts(verify=Shuffle(MOVES)), decode=spell,
        samples=4, max_new_tokens=11, sampling=Sampling(1.0), seed=3, logprobs=True, stop=("ZZZZ",),
    )  # fmt: skip
    assert len({tuple(row.tokens) for row in engine.finished.values()}) > 1
    for key, row in engine.finished.items():
        assert row.key == key and row.finish == "length" and len(row.tokens) == 11
        assert row.spell(spell, engine._request) == spell(row.tokens)
        assert [token for step in row.steps for token in step.emitted] == row.tokens
        assert row.log_weight == sum(row.tokens)
        assert len(row.logprobs) == 11 and engine.traces[key].new_tokens == 11


def test_weights_of_tokens_that_a_stop_cuts_off_do_not_count(play, toys) -> None:
    model = toys.Scripted({1: b"abc.def"})
    verifier = Shuffle([[0]])
    engine = play(model, [[1]], drafts=6, parts=Parts(verify=verifier), stop_ids=(ord("."),))
    assert bytes(engine.finished[0, 0].tokens) == b"abc." and engine.finished[0, 0].log_weight == sum(b"abc.")


def test_slots_neither_come_nor_go(play) -> None:
    with pytest.raises(ValueError, match="a verdict names 1 rows; the round has 2"):
        play(Table(5, seed=1), [[1], [2]], parts=Parts(verify=Shuffle([[0]])))
