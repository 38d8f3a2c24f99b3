"""Protocol: contrastive search. Candidates are claims, the verifier reads hidden states and adds no token of its own, and
the answer of the chosen claim is the next frontier's: after the first round the root costs no forward."""

from __future__ import annotations

import numpy as np
import pytest

from treewright.core.roles import Parts, Round, TargetLaw, Verdict
from treewright.models.tables import Table
from treewright.ops.largest import tops


class ContrastiveSearch:
    """Toy method: of the `count` likeliest tokens the one with the best (1 - alpha) p - alpha max cosine to earlier states."""

    def __init__(self, count: int, alpha: float) -> None:
        self.count, self.alpha = count, alpha

    def propose(self, round: Round) -> None:
        root = round.sessions["target"].root()
        round.forest.grow([0] * self.count, tops(root, self.count)[:, 0])

    def verify(self, round: Round, law: TargetLaw) -> Verdict:
        paths = []
        for row in range(round.rows):
            past = _unit(round.sessions["target"].states(row).numpy())
            candidates = _unit(round.answers["target"].hidden[row, 1:].numpy())  # type: ignore[index]
            chance = _softmax(law.logits(row, 0))[round.forest.token[row, 1:]]
            score = (1 - self.alpha) * chance - self.alpha * (candidates @ past.T).max(axis=1)
            paths.append([1 + int(score.argmax())])
        return Verdict(paths, [-1] * round.rows)

    def parts(self) -> Parts:
        return Parts(propose=self, verify=self, claims=self.count + 1, hidden=True, bonus=False)


def _unit(states: np.ndarray) -> np.ndarray:
    return states / np.linalg.norm(states, axis=-1, keepdims=True)


def _softmax(logits: np.ndarray) -> np.ndarray:
    exponent = np.exp(logits - logits.max())
    return exponent / exponent.sum()


def by_definition(table: Table, prompt: list[int], tokens: int, count: int, alpha: float) -> list[int]:
    text = list(prompt)
    for _ in range(tokens):
        chance = _softmax(table.logits(text))
        past = np.stack([table.hidden(text[:end]) for end in range(1, len(text) + 1)])
        best = np.argsort(-chance, kind="stable")[:count]
        score = [(1 - alpha) * chance[t] - alpha * (past @ table.hidden([*text, int(t)])).max() for t in best]
        text.append(int(best[int(np.argmax(score))]))
    return text[len(prompt) :]


@pytest.mark.parametrize("alpha", [0.6, 0.3])
def test_contrastive_search_follows_its_definition(decode, alpha: float) -> None:
    table = Table(6, seed=3)
    prompts = [[1, 2, 3], [4], [0, 5]]
    done = decode(table, ContrastiveSearch(3, alpha).parts(), prompts, max_new_tokens=10)
    assert done.tokens == [by_definition(table, prompt, 10, 3, alpha) for prompt in prompts]
    assert all(len(step.accepted) == 1 for step in done.trace().steps)


def test_a_round_costs_one_forward_because_the_chosen_answer_is_the_next_frontier(decode) -> None:
    done = decode(Table(6, seed=3), ContrastiveSearch(4, 0.6).parts(), [[1, 2, 3]], max_new_tokens=10)
    assert done.trace().model_calls == 1 + 10


def test_without_penalty_it_is_greedy(decode) -> None:
    table = Table(6, seed=3)
    searched = decode(table, ContrastiveSearch(3, 0.0).parts(), [[1, 2, 3], [5]], max_new_tokens=8)
    assert searched.tokens == decode(table, "plain", [[1, 2, 3], [5]], max_new_tokens=8).tokens


def test_rows_that_end_and_rows_that_join_keep_their_kept_answers(decode) -> None:
    """Stops end rows at different times and the queue lets others in, while the rest hold an answer that nobody asks again."""
    table, prompts = Table(6, seed=3), [[1, 2, 3], [4], [0, 5], [2, 2], [3, 1]]
    done = decode(table, ContrastiveSearch(3, 0.6).parts(), prompts, max_new_tokens=12, stop_ids=(2,), batch_rows=2)
    for prompt, tokens in zip(prompts, done.tokens, strict=True):
        expected = by_definition(table, prompt, 12, 3, 0.6)
        assert tokens == expected[: expected.index(2) + 1 if 2 in expected else None]
    assert len({len(tokens) for tokens in done.tokens}) > 1
