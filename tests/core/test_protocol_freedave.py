"""Protocol: FreeDave on an any-order table. Claims fill slots, one call answers a chain of canvases, and what it emits is
token for token what static low-confidence decoding emits, in fewer calls."""

from __future__ import annotations

import numpy as np
import pytest

from treewright.core.answers import Answers
from treewright.core.claims import ABSENT
from treewright.core.roles import Parts, Round, TargetLaw, Verdict
from treewright.models.tables import AnyOrderTable


def ranked(field: np.ndarray, canvas: np.ndarray, mask: int) -> list[tuple[int, int]]:
    """(slot, token) of the open slots, the most confident first, the lower slot on a tie."""
    slots = np.flatnonzero(canvas == mask)
    return [(int(slot), int(field[slot].argmax())) for slot in slots[np.argsort(-field[slots].max(axis=1), kind="stable")]]


def laws(answers: Answers, round: Round, row: int, column: int) -> np.ndarray:
    return answers.field.probabilities(row, column, range(int(round.text.length[row])))  # type: ignore[union-attr]


class Static:
    """Toy reference: one call, one slot, the most confident one."""

    mask = 5

    def verify(self, round: Round, law: TargetLaw) -> Verdict:
        best = [
            ranked(laws(round.answers["target"], round, row, 0), round.text.of(row), self.mask)[0] for row in range(round.rows)
        ]
        return Verdict([[]] * round.rows, [-1] * round.rows, fills=[[one] for one in best])


class FreeDave(Static):
    """Toy method: the root's own answer gives the next `drafts` states as a chain of claims; each state's answer says what
    the static successor is, and the chain is walked as far as it agrees. The last state's answer is the next root."""

    def __init__(self, drafts: int) -> None:
        self.drafts = drafts

    def propose(self, round: Round) -> None:
        root = round.sessions["target"].root()
        plans = [ranked(laws(root, round, row, 0), round.text.of(row), self.mask) for row in range(round.rows)]
        plans = [plan[: self.drafts] if len(plan) > 1 else [] for plan in plans]
        width = max(map(len, plans))
        slot, token = np.full((2, round.rows, width), ABSENT)
        for row, plan in enumerate(plans):
            slot[row, : len(plan)], token[row, : len(plan)] = np.array(plan, np.int64).reshape(-1, 2).T
        round.forest.grow(range(width), token, slots=slot)

    def verify(self, round: Round, law: TargetLaw) -> Verdict:
        verdict = Verdict([], [-1] * round.rows, fills=[])
        for row in range(round.rows):
            path, canvas = [], round.text.of(row).copy()
            while True:
                plan = ranked(laws(round.answers["target"], round, row, path[-1] if path else 0), canvas, self.mask)
                column = len(path) + 1
                claimed = column < round.forest.columns and (round.forest.slot[row, column], round.forest.token[row, column])  # type: ignore[index]
                if not plan or claimed != plan[0]:
                    break
                path.append(column)
                canvas[plan[0][0]] = plan[0][1]
            verdict.fills.append(plan if len(plan) == 1 else [])  # type: ignore[union-attr]
            verdict.paths.append(path)
        return verdict


def decode_both(decode, seed: int, prompts: list[list[int]], slots: int, drafts: int, **request):
    table, dave = AnyOrderTable(5, seed=seed), FreeDave(drafts)
    static = decode(table, Parts(verify=Static(), bonus=False), prompts, max_new_tokens=slots, **request)
    parts = Parts(propose=dave, verify=dave, claims=drafts + 1, bonus=False)
    return static, decode(table, parts, prompts, max_new_tokens=slots, **request)


@pytest.mark.parametrize("drafts", [1, 2, 4, 8])
def test_freedave_equals_static_decoding_in_fewer_calls(decode, drafts: int) -> None:
    calls = 0
    for seed in range(12):
        static, dave = decode_both(decode, seed, [[1, 2]], 8, drafts)
        assert dave.tokens == static.tokens and len(static.tokens[0]) == 8 and max(static.tokens[0]) < 5
        assert static.trace().model_calls == 8
        assert 1 + -(-7 // drafts) <= dave.trace().model_calls <= 8
        calls += dave.trace().model_calls
    assert calls == 12 * 8 if drafts == 1 else calls < 12 * 8


def test_a_ragged_batch_decodes_as_its_rows_alone(decode) -> None:
    prompts = [[1, 2], [3], [0, 4, 4]]
    static, dave = decode_both(decode, 7, prompts, 6, 4, batch_rows=2)
    assert dave.tokens == static.tokens
    assert static.tokens == [decode_both(decode, 7, [prompt], 6, 4)[0].tokens[0] for prompt in prompts]


def test_a_stop_counts_once_everything_before_it_is_settled(decode) -> None:
    static, _ = decode_both(decode, 3, [[1, 2]], 8, 4)
    stop = static.tokens[0][4]
    first = static.tokens[0].index(stop)
    for done in decode_both(decode, 3, [[1, 2]], 8, 4, stop_ids=(stop,)):
        assert done.tokens[0] == static.tokens[0][: first + 1]
        assert done.engine.finished[0, 0].finish == "stop"
