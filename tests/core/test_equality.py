"""The equality rule: exact where it can be, excused by measured noise and by nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from treewright.core.answers import Answers
from treewright.core.claims import Forest
from treewright.core.equality import first_divergence, judge, replay
from treewright.core.session import Opening, Recorder
from treewright.core.text import Text
from treewright.models.recompute import RecomputeSession
from treewright.models.tables import Table

PROMPT = [1, 2, 0]


class Shaken:
    """A table whose wide forwards shift the logit of token 0 by `shift`, and which is of the given dtype."""

    def __init__(self, gap: float, shift: float, dtype: torch.dtype) -> None:
        self._gap, self._shift, self._dtype = gap, shift, dtype
        self.widths: list[int] = []
        self.capabilities = Table(3, 0).capabilities

    def open(self, text: Text, opening: Opening, record: Recorder) -> Any:
        def read(sequences: list[np.ndarray], plans: Any = ()) -> list[tuple[torch.Tensor, None]]:
            return [(torch.tensor([[1.0, 1.0 + self._gap, -3.0]]).repeat(len(s), 1), None) for s in sequences]

        session, shaken = RecomputeSession(text, opening, record, read), self

        class Wide:
            def __getattr__(self, name: str) -> Any:
                return getattr(session, name)

            def score(self, forest: Forest) -> Answers:
                logits = session.score(forest).logits.clone()
                logits[..., 0] += shaken._shift if forest.columns > 1 else 0.0
                shaken.widths.append(forest.columns)
                return Answers(logits.to(shaken._dtype))

        return Wide()


def greedy(gap: float, shift: float, dtype: torch.dtype, found: Sequence[int], width: int = 6) -> Any:
    return judge(Shaken(gap, shift, dtype), PROMPT, [1] * 12, found, width)  # type: ignore[arg-type]


def test_first_divergence() -> None:
    assert first_divergence([1, 2, 3], [1, 2, 3]) is None
    assert first_divergence([1, 2, 3], [1, 5, 3]) == 1
    assert first_divergence([1, 2, 3], [1, 2]) == 2
    assert first_divergence([], [4]) == 0


def test_equal_needs_no_call() -> None:
    model = Shaken(0.1, 1.0, torch.bfloat16)
    assert judge(model, PROMPT, [1, 1], [1, 1], 8) is None  # type: ignore[arg-type]
    assert model.widths == []


@pytest.mark.parametrize(("gap", "shift", "excused"), [(0.0625, 0.125, True), (0.125, 0.0625, False), (0.125, 0.125, False)])
def test_excused_only_below_the_noise(gap: float, shift: float, excused: bool) -> None:
    divergence = greedy(gap, shift, torch.bfloat16, [1, 1, 1, 0, 1])
    assert divergence.index == 3 and (divergence.expected, divergence.found) == (1, 0)
    assert divergence.margin == pytest.approx(gap) and divergence.noise == pytest.approx(shift)
    assert divergence.excused is excused
    assert f"margin {gap:.3g} is {'below' if excused else 'not below'} the noise {shift:.3g}" in str(divergence)


def test_the_margin_is_that_of_the_token_found() -> None:
    """A flip to a token that was never near the largest is no arithmetic, however near the second was."""
    divergence = greedy(0.0625, 0.125, torch.bfloat16, [1, 1, 2])
    assert divergence.margin > 4 and not divergence.excused


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_nothing_is_excused_in_exact_dtypes(dtype: torch.dtype) -> None:
    divergence = greedy(0.0, 1.0, dtype, [1, 0])
    assert divergence.exact and not divergence.excused
    assert "no difference is excused" in str(divergence)


def test_a_text_that_ends_is_not_excused() -> None:
    divergence = greedy(0.0, 1.0, torch.bfloat16, [1, 1])
    assert divergence.found is None and divergence.index == 2 and not divergence.excused
    assert "one text ends there" in str(divergence)


def test_noise_is_measured_at_the_width_that_occurred() -> None:
    model = Shaken(0.0, 1.0, torch.bfloat16)
    judge(model, PROMPT, [1] * 12, [0], 6)  # type: ignore[arg-type]
    assert set(model.widths) == {1, 4, 6}


def test_drawn_tokens() -> None:
    """At temperature 1 the token is read off the cumulated law: 0 below 1/2 or so, 1 above."""
    model = Shaken(0.0, 0.125, torch.bfloat16)
    edge = float(np.exp(1.0) / (2 * np.exp(1.0) + np.exp(-3.0)))
    for uniform, excused in ((edge + 0.001, True), (edge + 0.2, False)):
        divergence = judge(model, PROMPT, [1, 1], [1, 0], 4, 1.0, lambda position, u=uniform: u)  # type: ignore[arg-type,misc]
        assert divergence is not None and divergence.excused is excused
        assert divergence.margin == pytest.approx(uniform - edge)


def test_replay_reads_what_the_model_says() -> None:
    """Narrow and wide readings of a table are its own logits, at every position and width."""
    table, tokens = Table(4, seed=3), [0, 3, 1, 1, 2, 0, 3]
    seen = list(replay(table, PROMPT, tokens, [2, 4, 16]))  # type: ignore[arg-type]
    assert [index for index, *_ in seen] == list(range(len(tokens)))
    for index, narrow, wide, exact in seen:
        expected = table.logits([*PROMPT, *tokens[:index]])
        assert exact and len(wide) == 3
        assert all(np.array_equal(logits, expected) for logits in (narrow, *wide))
