"""What methods learn: memory of the model's scope lasts, memory of a row's scope follows the row when rows fork."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np

from treewright.core.memories import Memories
from treewright.core.request import Sampling
from treewright.core.roles import Outcome, Parts, Round, TargetLaw, Verdict
from treewright.models.tables import Table
from treewright.parts.verify.sample_then_match import SampleThenMatch


def test_memory_of_a_row_is_copied_on_a_fork_and_forgotten_with_the_row() -> None:
    memories = Memories({})
    for row in range(3):
        memories.row((0, row), "notes", list).append(row)
    memories.fork([(0, 0), (0, 1), (0, 2)], [(0, 2), (0, 1), (0, 0)])
    assert [memories.row((0, row), "notes", list) for row in range(3)] == [[2], [1], [0]]
    memories.fork([(0, 0), (0, 1), (0, 2)], [(0, 1), (0, 1), (0, 1)])
    memories.row((0, 0), "notes", list).append("own")
    assert [memories.row((0, row), "notes", list) for row in range(3)] == [[1, "own"], [1], [1]]
    memories.forget((0, 0))
    assert memories.row((0, 0), "notes", list) == []


def test_what_is_loaded_is_read_once_and_shared_by_arms_and_fresh_memory_and_what_is_learned_is_not() -> None:
    lasting: dict[Hashable, Any] = {}
    memories, read = Memories(lasting), list[int]()

    def read_file() -> tuple[int, ...]:
        read.append(len(read))
        return (1, 2, 3)

    memories.model("key", list).append("learned")
    first = memories.loaded("key", read_file)
    for other in (memories.within("arm"), memories.fresh(), memories.fresh().within("arm").fresh(), Memories(lasting)):
        assert other.loaded("key", read_file) is first
    assert read == [0] and memories.fresh().loaded("another", read_file) is not None and read == [0, 1]
    assert memories.fresh().model("key", list) == memories.fresh().row((0, 0), "key", list) == []
    assert memories.model("key", list) == Memories(lasting).model("key", list) == ["learned"]
    fresh = memories.fresh()
    fresh.model("key", list).append("apart")
    assert memories.model("key", list) == ["learned"] and memories.fresh().model("key", list) == []


class Shuffle(SampleThenMatch):
    """Draws a token for every row, then lets every row continue its right neighbour."""

    def verify(self, round: Round, law: TargetLaw) -> Verdict:
        verdict = super().verify(round, law)
        verdict.rows = [*range(1, round.rows), 0] if round.number % 2 else [0] * round.rows
        verdict.extra = [verdict.extra[row] for row in verdict.rows]
        return verdict


class Diary:
    """Writes down a row's tokens in memory of its scope, and counts rounds in memory of the model's."""

    prompt_top = 0

    def __init__(self) -> None:
        self.checked = 0

    def read_prompts(self, round: Round, prompts: Sequence[Sequence[int]], top: np.ndarray) -> None:
        raise AssertionError("nobody asked for the prompt's predictions")

    def observe(self, outcome: Outcome) -> None:
        round = outcome.round
        round.memories.model("rounds", lambda: [0])[0] += 1
        for row, key in enumerate(round.keys):
            diary = round.memories.row(key, "diary", list)
            diary += outcome.emitted[row]
            assert diary == round.text.of(row)[round.text.prompt[row] :].tolist()
            self.checked += 1


def test_a_rows_memory_goes_where_its_text_goes(decode) -> None:
    diary, lasting = Diary(), {}
    done = decode(
        Table(6, seed=1), Parts(verify=Shuffle()), [[1, 2]], observers=[diary], memories=lasting, samples=4, max_new_tokens=8,
        sampling=Sampling(1.0),
    )  # fmt: skip
    assert diary.checked == 4 * 8 and lasting["rounds"] == [8]
    steps = [[step.emitted[0] for step in done.trace(0, sample).steps] for sample in range(4)]
    assert steps == [done.rows[0, sample] for sample in range(4)], "a row's trace is the history of its text"
    assert len({tuple(tokens) for tokens in done.rows.values()}) > 1, "slots keep noise of their own"
