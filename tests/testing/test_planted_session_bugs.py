"""Bugs of a model's session and memory, planted in a tiny random Llama: the law of tree scoring must see each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from treewright.core.answers import Answers
from treewright.models import memory
from treewright.models.causal_session import CausalSession
from treewright.models.loading import Loaded
from treewright.testing import laws
from treewright.testing.laws import LawBroken

Patch = pytest.MonkeyPatch
Make = Callable[..., Loaded]


def commit_keeps_a_rejected_slot(patch: Patch) -> None:
    """The bonus token is believed to be in memory, where the memory of a rejected claim lies."""
    clean = CausalSession.commit

    def commit(self: CausalSession, paths: Any) -> None:
        kept = []
        for row, path in enumerate(paths):
            bonus = int(self._text.length[row] - self.seen[row] - self._pending[row]) > len(path)
            rejected = range(path[-1] + 1 if path else 1, self._scored)
            kept.append([*path, *rejected[:1]] if bonus else path)
        clean(self, kept)

    patch.setattr(CausalSession, "commit", commit)


def commit_keeps_the_rejected_sibling_in_place_of_the_accepted(patch: Patch) -> None:
    clean = CausalSession.commit

    def commit(self: CausalSession, paths: Any) -> None:
        clean(self, [[max(1, column - 1) for column in path] for path in paths])

    patch.setattr(CausalSession, "commit", commit)


def commit_does_not_gather(patch: Patch) -> None:
    clean = CausalSession.commit

    def commit(self: CausalSession, paths: Any) -> None:
        clean(self, [list(range(1, len(path) + 1)) for path in paths])

    patch.setattr(CausalSession, "commit", commit)


def fork_does_not_copy_memory(patch: Patch) -> None:
    patch.setattr(memory.Memory, "select", lambda self, rows, used: None)


def root_kept_from_the_frontier_of_the_last_round(patch: Patch) -> None:
    clean = CausalSession.commit

    def commit(self: CausalSession, paths: Any) -> None:
        clean(self, paths)
        self._last = (self._last[0], [0] * len(paths))  # type: ignore[index]

    patch.setattr(CausalSession, "commit", commit)


def answers_one_column_late(patch: Patch) -> None:
    clean = CausalSession._assemble

    def assemble(self: CausalSession, block: Answers, *rest: Any) -> Answers:
        return clean(self, Answers(block.logits.roll(1, dims=1)), *rest)

    patch.setattr(CausalSession, "_assemble", assemble)


def positions_by_column_instead_of_depth(patch: Patch) -> None:
    clean = CausalSession._positions

    def positions(self: CausalSession, forest: Any, first: bool) -> np.ndarray:
        right = clean(self, forest, first)
        return right[:, :1] + np.arange(right.shape[1])[None]

    patch.setattr(CausalSession, "_positions", positions)


def memory_of_nan(patch: Patch) -> None:
    class Torch:
        def __getattr__(self, name: str) -> Any:
            return getattr(torch, name)

        @staticmethod
        def zeros(*size: Any, **options: Any) -> torch.Tensor:
            return torch.full(size, float("nan"), **options)

    patch.setattr(memory, "torch", Torch())


BUGS: dict[str, list[Callable[[Patch], None]]] = {
    "off by one": [answers_one_column_late, positions_by_column_instead_of_depth],
    "stale memory after a rejection": [
        commit_keeps_a_rejected_slot,
        commit_keeps_the_rejected_sibling_in_place_of_the_accepted,
        commit_does_not_gather,
        fork_does_not_copy_memory,
        root_kept_from_the_frontier_of_the_last_round,
    ],
    "NaN in padding": [memory_of_nan],
}
PLANTED = [(kind, plant) for kind, plants in BUGS.items() for plant in plants]


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize(("kind", "plant"), PLANTED, ids=[plant.__name__ for _, plant in PLANTED])
def test_tree_scoring_sees_the_planted_bug(
    kind: str, plant: Callable[[Patch], None], dtype: torch.dtype, tiny_llama: Make
) -> None:
    with pytest.MonkeyPatch.context() as patch, pytest.raises(LawBroken, match="logits' standard deviation"):
        plant(patch)
        laws.tree_scoring(tiny_llama(dtype))


@pytest.mark.parametrize(("dtype", "error"), [(torch.float64, 1e-12), (torch.bfloat16, 0.05)])
def test_without_the_bug_a_session_scores_as_the_bare_model(tiny_llama: Make, dtype: torch.dtype, error: float) -> None:
    report = laws.tree_scoring(tiny_llama(dtype))
    assert report.claims > 100
    assert report.relative < error
