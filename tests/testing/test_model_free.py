"""Drafters without a model, on a small transformers model and under forks: cold and warm memory change no text."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from treewright.api import generate
from treewright.core.registry import entry
from treewright.core.request import Sampling
from treewright.core.roles import Parts, Round, TargetLaw, Verdict
from treewright.models.loading import Loaded
from treewright.models.tables import Table
from treewright.parts.verify.sample_then_match import SampleThenMatch

METHODS: dict[str, dict[str, Any]] = {"suffix": {}, "rest": {"fresh": 4}, "aded": {"update": "llm_topk"}, "stand": {}}
PROMPTS = [[3, 1, 4, 1, 5, 9, 2, 6, 3, 1, 4], [5], [35, 8, 9, 7, 9]]


def tokens_of(model: Loaded, method: str, options: dict[str, Any], **settings: Any) -> tuple[list[list[int]], int]:
    """The tokens of every sample, and the accepted drafts of the first ones."""
    results = generate(model, PROMPTS, method, options, max_new_tokens=24, n=2, seed=3, **settings)
    accepted = sum(len(step.accepted) for result in results for step in result.trace.steps)
    return [sample.tokens for result in results for sample in result.samples], accepted


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_text_is_that_of_plain_decoding_whatever_is_remembered(
    method: str, temperature: float, tiny_llama: Callable[..., Loaded]
) -> None:
    model = tiny_llama()
    plain = tokens_of(model, "plain", {}, temperature=temperature, batch_rows=1)[0]
    options = METHODS[method] | ({"draws": "likeliest"} if method == "stand" and temperature else {})
    for batch_rows in (1, 3, 1):
        tokens, accepted = tokens_of(model, method, options, temperature=temperature, batch_rows=batch_rows)
        assert tokens == plain
    assert accepted > 20


def test_drawn_trees_have_their_text_accepted_on_a_model(tiny_llama: Callable[..., Loaded]) -> None:
    model = tiny_llama()
    for batch_rows in (1, 3, 3):
        tokens, accepted = tokens_of(model, "stand", {}, temperature=0.2, batch_rows=batch_rows)
        assert all(len(text) == 24 for text in tokens)
    assert accepted > 20


class Rotate(SampleThenMatch):
    """Every row continues its neighbour's text in every third round; with `walk` False no draft is accepted, so that rounds are
    those of plain decoding."""

    def __init__(self, walk: bool) -> None:
        self._walk = walk

    def verify(self, round: Round, law: TargetLaw) -> Verdict:
        rows = [(row + (round.number % 3 == 2)) % round.rows for row in range(round.rows)]
        if not self._walk:
            return Verdict([[] for _ in rows], [law.draw(row, 0)[0] for row in rows], rows=rows)
        verdict = super().verify(round, law)
        return Verdict([list(verdict.paths[row]) for row in rows], [verdict.extra[row] for row in rows], rows=rows)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("walk", [False, True])
def test_rows_that_fork_keep_working(method: str, walk: bool, decode: Callable[..., Any]) -> None:
    table = Table(6, seed=3, order=2, sharpness=2.0)
    module = entry(method).load()
    # Drawn trees are verified as if they were deterministic here, which is exact too and follows plain sampling.
    settings = dict(max_new_tokens=40, samples=3, sampling=Sampling(temperature=0.7))
    parts = module.parts(module.Config(**METHODS[method]))
    parts.verify = Rotate(walk)
    run = decode(table, parts, [(1, 2), (3, 3, 1)], **settings)
    assert all(len(tokens) == 40 for tokens in run.rows.values())
    if walk:
        assert run.accepted() > 5
    else:
        assert run.rows == decode(table, Parts(verify=Rotate(False)), [(1, 2), (3, 3, 1)], **settings).rows
