"""The target law at every node of a tree, value for value what transformers' processors make of the node's own prefix."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    LogitsProcessorList,
    MinNewTokensLengthLogitsProcessor,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    SequenceBiasLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
    TypicalLogitsWarper,
)

from treewright.core.claims import ABSENT
from treewright.core.request import Sampling
from treewright.core.roles import Parts, Round, TargetLaw, Verdict
from treewright.models.tables import Table
from treewright.parts.verify.sample_then_match import SampleThenMatch

VOCABULARY = 12
PROMPTS = [[1, 2, 3], [7], [4, 4, 9, 9, 9]]
ENDS = [5, 6]


class RandomTree:
    """Three levels of random claims, other ones in every round, some of them absent."""

    def propose(self, round: Round) -> None:
        random = np.random.default_rng(round.number)
        token = random.integers(-1, VOCABULARY, size=(round.rows, 7))
        parents = [0, 0, 0, 1, 1, 4, 6]
        for column, parent in enumerate(parents, start=1):
            if parent:
                token[:, column - 1] = np.where(token[:, parent - 1] == ABSENT, ABSENT, token[:, column - 1])
        round.forest.grow(parents, token)


class CompareEveryNode(SampleThenMatch):
    """A verifier that looks at the whole tree before it walks."""

    def __init__(self, model: Table, theirs: Any) -> None:
        self.model, self.theirs, self.nodes = model, theirs, 0

    def verify(self, round: Round, law: TargetLaw) -> Verdict:
        for row in range(round.rows):
            for column in np.flatnonzero(round.forest.token[row] != ABSENT).tolist():
                prefix = [*round.text.of(row).tolist(), *round.forest.path_tokens(row, column)]
                logits = torch.from_numpy(self.model.logits(prefix))[None]
                wanted = self.theirs(int(round.text.prompt[row]))(torch.tensor([prefix]), logits.clone()).softmax(-1)[0]
                assert law.probs(row, column) == pytest.approx(wanted.numpy(), abs=1e-12)
                self.nodes += 1
        return super().verify(round, law)


CASES: list[tuple[Sampling, list[Any]]] = [
    (Sampling(1.0, repetition_penalty=1.5), [RepetitionPenaltyLogitsProcessor(1.5)]),
    (Sampling(0.6, top_k=4), [TemperatureLogitsWarper(0.6), TopKLogitsWarper(4)]),
    (Sampling(1.0, top_p=0.7), [TopPLogitsWarper(0.7)]),
    (Sampling(1.0, min_p=0.2), [MinPLogitsWarper(0.2)]),
    (Sampling(1.0, typical_p=0.7), [TypicalLogitsWarper(0.7)]),
    (
        Sampling(1.4, 9, 0.9, 0.03, 0.95, repetition_penalty=1.2, logit_bias=((0, 1.5), (3, -2.0))),
        [
            SequenceBiasLogitsProcessor({(0,): 1.5, (3,): -2.0}), RepetitionPenaltyLogitsProcessor(1.2),
            TemperatureLogitsWarper(1.4), TopKLogitsWarper(9), TopPLogitsWarper(0.9), MinPLogitsWarper(0.03),
            TypicalLogitsWarper(0.95),
        ],
    ),
]  # fmt: skip


@pytest.mark.parametrize("least", [0, 6])
@pytest.mark.parametrize(("sampling", "steps"), CASES, ids=lambda value: str(value) if isinstance(value, Sampling) else "")
def test_every_node_has_the_law_of_its_own_prefix(play, sampling: Sampling, steps: list[Any], least: int) -> None:
    table = Table(VOCABULARY, seed=2, sharpness=2.0)

    def theirs(prompt: int) -> LogitsProcessorList:
        shortest = [MinNewTokensLengthLogitsProcessor(prompt, least, ENDS)] if least else []
        first = [step for step in steps if not type(step).__name__.endswith("Warper")]
        return LogitsProcessorList([*first, *shortest, *(step for step in steps if step not in first)])

    compare = CompareEveryNode(table, theirs)
    parts = Parts(propose=RandomTree(), verify=compare, claims=8)
    play(table, PROMPTS, parts=parts, sampling=sampling, max_new_tokens=8, min_new_tokens=least, stop_ids=(5,), eos_ids=(6,))
    assert compare.nodes > 30


def test_presence_and_frequency_follow_the_claims(play) -> None:
    table = Table(VOCABULARY, seed=2)

    def theirs(prompt: int) -> Any:
        def penalise(ids: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
            count = torch.bincount(ids[0, prompt:], minlength=VOCABULARY).double()
            return logits - 0.8 * (count > 0).double() - 0.3 * count

        return penalise

    compare = CompareEveryNode(table, theirs)
    sampling = Sampling(1.0, presence_penalty=0.8, frequency_penalty=0.3)
    play(table, PROMPTS, parts=Parts(RandomTree(), compare, claims=8), sampling=sampling, max_new_tokens=8)
    assert compare.nodes > 30


def test_ends_that_are_ignored_are_not_held_back(play) -> None:
    table = Table(VOCABULARY, seed=2)
    compare = CompareEveryNode(table, lambda prompt: lambda ids, logits: logits)
    parts = Parts(RandomTree(), compare, claims=8)
    play(table, PROMPTS, parts=parts, sampling=Sampling(1.0), max_new_tokens=6, min_new_tokens=6, eos_ids=(5, 6), ignore_eos=True)
    assert compare.nodes > 30


class Double:
    """Steering that doubles the logits and notes which prefixes it was asked about."""

    models: tuple[str, ...] = ()

    def __init__(self) -> None:
        self.asked: list[tuple[tuple[int, int], tuple[int, ...]]] = []

    def prompt(self, model: str, prompt: Sequence[int]) -> Sequence[int]:
        return prompt

    def steer(self, logits: np.ndarray, others: Mapping[str, np.ndarray], prefix: np.ndarray, row: tuple[int, int]) -> np.ndarray:
        self.asked.append((row, tuple(prefix.tolist())))
        return 2 * logits


class OddAfterEven:
    def mask(self, row: Hashable, continuation: np.ndarray) -> np.ndarray:
        wanted = 1 if len(continuation) and continuation[-1] % 2 == 0 else 0
        return np.arange(VOCABULARY) % 2 == wanted


def test_steering_comes_first_then_the_constraint_then_penalties_and_warpers(play) -> None:
    table, sampling = Table(VOCABULARY, seed=2), Sampling(0.9, top_k=3, repetition_penalty=1.3)

    def theirs(prompt: int) -> Any:
        warp = LogitsProcessorList([RepetitionPenaltyLogitsProcessor(1.3), TemperatureLogitsWarper(0.9), TopKLogitsWarper(3)])

        def law(ids: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
            allowed = torch.from_numpy(OddAfterEven().mask((0, 0), ids[0, prompt:].numpy()))
            return warp(ids, (2 * logits).masked_fill(~allowed, -torch.inf))

        return law

    compare = CompareEveryNode(table, theirs)
    parts = Parts(RandomTree(), compare, claims=8, steer=(Double(),), constrain=(OddAfterEven(),))
    play(table, PROMPTS, parts=parts, sampling=sampling, max_new_tokens=8)
    assert compare.nodes > 30


def test_only_visited_nodes_are_asked_about_and_each_once(play) -> None:
    steer = Double()
    parts = Parts(RandomTree(), SampleThenMatch(), claims=8, steer=(steer,))
    engine = play(Table(VOCABULARY, seed=2), PROMPTS, parts=parts, max_new_tokens=8)
    assert len(steer.asked) == len(set(steer.asked))
    visited = sum(len(step.accepted) + 1 for trace in engine.traces.values() for step in trace.steps)
    assert len(steer.asked) == visited


@pytest.mark.parametrize("drafts", [None, 4])
@pytest.mark.parametrize("sampling", [Sampling(0.0), Sampling(1.0, top_k=2, repetition_penalty=1.3)], ids=str)
def test_logprobs_are_the_models_own_at_temperature_one(play, drafts: int | None, sampling: Sampling) -> None:
    table = Table(VOCABULARY, seed=2)
    settings = dict(drafts=drafts, sampling=sampling, max_new_tokens=9, stop_ids=(5,), samples=2)
    engine = play(table, PROMPTS, logprobs=True, **settings)
    for (prompt, _), row in engine.finished.items():
        text = list(PROMPTS[prompt])
        wanted = []
        for token in row.tokens:
            logits = table.logits(text)
            wanted.append(logits[token] - np.log(np.exp(logits).sum()))
            text.append(token)
        assert row.logprobs == pytest.approx(wanted, abs=1e-12) and row.tokens
    unasked = play(table, PROMPTS, **settings)
    assert all(row.to_sample("", False).logprobs is None and not row.logprobs for row in unasked.finished.values())
