"""Rows of a batch: ragged, ending at different times, joining from the queue, sharing a prompt; each as if it were alone."""

from __future__ import annotations

import pytest

from treewright.core.request import Sampling
from treewright.models.tables import Table

PROMPTS = [[1, 2, 3, 4], [5], [0, 0], [3, 1, 2], [2], [4, 4, 4, 4, 4, 1], [1]]
SAMPLINGS = [Sampling(0.0), Sampling(1.0), Sampling(0.8, top_k=4, repetition_penalty=1.3)]


def tokens_of(engine) -> dict[tuple[int, int], list[int]]:
    return {key: row.tokens for key, row in engine.finished.items()}


@pytest.mark.parametrize("drafts", [None, 3])
@pytest.mark.parametrize("sampling", SAMPLINGS, ids=str)
def test_a_row_alone_equals_the_row_in_a_batch(play, drafts: int | None, sampling: Sampling) -> None:
    table = Table(6, seed=1)
    settings = dict(drafts=drafts, sampling=sampling, max_new_tokens=14, stop_ids=(5,), seed=3)
    together = tokens_of(play(table, PROMPTS, **settings))
    assert together == tokens_of(play(table, PROMPTS, batch_rows=1, **settings))
    assert len({len(tokens) for tokens in together.values()}) > 2, "the rows have to end at different times"


@pytest.mark.parametrize("drafts", [None, 3])
def test_a_greedy_row_does_not_depend_on_its_place(play, drafts: int | None) -> None:
    table = Table(6, seed=1)
    together = tokens_of(play(table, PROMPTS, drafts=drafts, max_new_tokens=9))
    for place, prompt in enumerate(PROMPTS):
        alone = tokens_of(play(table, [prompt], drafts=drafts, max_new_tokens=9))
        assert alone[0, 0] == together[place, 0]


def test_drafts_change_nothing_but_the_number_of_rounds(play) -> None:
    table = Table(6, seed=1)
    for sampling in SAMPLINGS:
        plain = play(table, PROMPTS, sampling=sampling, max_new_tokens=12, seed=5)
        drafted = play(table, PROMPTS, drafts=3, sampling=sampling, max_new_tokens=12, seed=5)
        assert tokens_of(drafted) == tokens_of(plain)
        if sampling.greedy:
            assert drafted.traces[0, 0].model_calls == 3 and plain.traces[0, 0].model_calls == 12


@pytest.mark.parametrize("batch_rows", [1, 2, 3, 5])
def test_more_samples_than_rows_wait_and_join_in_flight(play, batch_rows: int) -> None:
    table = Table(6, seed=1)
    settings = dict(sampling=Sampling(1.0), samples=3, max_new_tokens=12, stop_ids=(5,))
    queued, roomy = play(table, PROMPTS, batch_rows=batch_rows, **settings), play(table, PROMPTS, batch_rows=64, **settings)
    assert tokens_of(queued) == tokens_of(roomy)
    assert len(queued.finished) == 21
    calls = [call for call in queued.traces[6, 2].calls if call.kind == "score"]
    assert max(call.rows for call in calls) <= batch_rows
    # No slot stays empty while samples wait, which takes that rows join before the others of the batch have ended.
    total = sum(map(len, tokens_of(queued).values()))
    longest = max(map(len, tokens_of(queued).values()))
    assert queued._meter.target_calls <= total / batch_rows + longest


def test_samples_of_a_prompt_share_its_reading() -> None:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from treewright.core.request import Request
    from treewright.core.roles import Parts
    from treewright.engine.loop import Engine, Run
    from treewright.models.causal import CausalModel
    from treewright.parts.verify.sample_then_match import SampleThenMatch

    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=31, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2)
    model = CausalModel(LlamaForCausalLM(config).to(torch.float64))

    def run(samples: int, temperature: float) -> Engine:
        request = Request(
            prompts=((1, 2, 3, 4, 5, 6), (7, 8, 9)), samples=samples, max_new_tokens=8, sampling=Sampling(temperature), seed=1
        )
        engine = Engine(Run(request, {"target": model}, Parts(verify=SampleThenMatch())))
        for _ in engine.run():
            pass
        return engine

    engine = run(4, 1.0)
    prefills = [(call.rows, call.columns) for call in engine.traces[0, 0].calls if call.kind == "prefill"]
    assert prefills == [(2, 5)], "one row for each prompt, not for each sample"
    samples = {tuple(tokens) for (prompt, _), tokens in tokens_of(engine).items() if prompt == 0}
    assert len(samples) == 4, "samples have noise of their own"
    assert tokens_of(run(1, 1.0)).items() <= tokens_of(engine).items()
    assert len({tuple(tokens) for (prompt, _), tokens in tokens_of(run(3, 0.0)).items() if prompt == 0}) == 1


def test_a_limit_on_columns_is_shared_by_the_rows(play) -> None:
    table, seen = Table(6, seed=1), []

    class Measure:
        def claims(self, round) -> int:
            seen.append((round.rows, round.claims))
            return 2

    from treewright.core.roles import Parts
    from treewright.parts.verify.sample_then_match import SampleThenMatch

    parts = Parts(verify=SampleThenMatch(), control=Measure(), claims=40)
    play(table, PROMPTS, parts=parts, columns=60, max_new_tokens=12, stop_ids=(5,))
    assert seen[0] == (7, 60 // 7) and all(claims == min(40, 60 // rows) for rows, claims in seen)
    assert len({rows for rows, _ in seen}) > 2
