"""The trace: its counts, and the same again from JSON."""

from __future__ import annotations

import json

from treewright.core.trace import Call, Step, Trace


def test_counts_are_those_of_the_targets_own_rounds_and_survive_json() -> None:
    trace = Trace(
        recipe={"method": "plain", "options": {}},
        calls=[
            Call("target", "prefill", 1, 9, 0.5), Call("draft", "prefill", 1, 9, 0.25),
            Call("draft", "score", 1, 1, 0.125), Call("target", "score", 1, 4, 1.0), Call("target", "score", 1, 4, 2.0),
        ],
        steps=[Step(0, [5, 6, 7], [-1, 0, 1], [1], [6, 8], checks=6), Step(0, [8, 9, -1], [-1, 0, 1], [], [1])],
        notes={"why": [1, 2]}, new_tokens=3, seconds=4.5, cache_bytes=64,
    )  # fmt: skip
    assert trace.model_calls == 2 and trace.tokens_per_call == 1.5 and trace.seconds_in_model == 3.875
    assert Trace.from_json(trace.to_json()) == trace
    summary = {"model_calls": 2, "tokens_per_call": 1.5, "seconds_in_model": 3.875, "checks_per_token": 2.0}
    assert json.loads(trace.to_json())["summary"] == summary


def test_an_empty_trace_divides_by_nothing() -> None:
    assert Trace().tokens_per_call == 0 and Trace.from_json(Trace().to_json()) == Trace()


def test_a_run_leaves_a_trace_that_adds_up(decode) -> None:
    from treewright.models.tables import Table

    table = Table(6, seed=1)
    done = decode(table, "speculative_sampling", [[1, 2], [3]], {"tokens": 3}, draft=table, max_new_tokens=9, stop_ids=(4,))
    for prompt in range(2):
        trace = done.trace(prompt)
        assert [token for step in trace.steps for token in step.emitted] == done.tokens[prompt]
        assert trace.new_tokens == len(done.tokens[prompt]) and len(trace.steps) <= trace.model_calls
        for step in trace.steps:
            # What was accepted is a path of the step's own tree, and what became text starts with its tokens.
            assert [step.parent[column] for column in step.accepted] == [0, *step.accepted][: len(step.accepted)]
            assert [step.token[column] for column in step.accepted] == step.emitted[: len(step.accepted)]
        assert Trace.from_json(trace.to_json()) == trace
