"""The laws of searches hold for whoever claims them, and catch searches that are nearly right."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from treewright.core.registry import methods
from treewright.core.roles import Round, TargetLaw, Verdict
from treewright.engine.loop import Engine
from treewright.methods.search.best_first_beam import Queue
from treewright.methods.search.stochastic_beam import StochasticBeams
from treewright.parts.search.beams import BeamSearch, BeamStep
from treewright.testing import laws

SEARCH_LAWS = ("equals_beam", "equals_beam_in_groups", "without_replacement")
CLAIMS = [(card.name, claim) for card in methods() for claim in card.claims if claim in SEARCH_LAWS]


def test_beam_is_no_diverse_beam_and_the_other_way_round() -> None:
    with pytest.raises(laws.LawBroken, match=r"diverse_beam, temperature 0, table \d: after prompt .* by definition"):
        laws.equals_beam("diverse_beam")


PLANTED: list[tuple[type, str, Callable[..., Any], str, dict[str, Any]]] = []


def planted(target: type, name: str, method: str, options: dict[str, Any] | None = None) -> Callable[..., Any]:
    def keep(bug: Callable[..., Any]) -> Callable[..., Any]:
        PLANTED.append((target, name, bug, method, options or {}))
        return bug

    return keep


@planted(BeamSearch, "_done", "beam")
def stops_too_early(self: Any, round: Round, row: int, hypotheses: list[float], best: float, length: int) -> bool:
    return bool(hypotheses)


@planted(BeamSearch, "_decide", "beam")
def forgets_the_end_token(self: Any, round: Round, verdict: Verdict, key: Any, own: list[int], step: BeamStep) -> None:
    step.ended = [replace(child, total=child.total - child.log_probability) for child in step.ended]
    DECIDE(self, round, verdict, key, own, step)


@planted(BeamSearch, "_step", "diverse_beam")
def no_penalty(self: Any, round: Round, law: TargetLaw, own: list[int], counts: np.ndarray | None) -> BeamStep:
    return STEP(self, round, law, own, None)


@planted(Queue, "_over", "best_first_beam")
def bound_at_the_own_length(self: Any) -> bool:
    if len(self._scores) < self._wanted:
        return False
    return -self._waiting[0].cost / self._waiting[0].depth <= sorted(self._scores, reverse=True)[self._wanted - 1]


@planted(Engine, "_regroup", "beam")
def rows_do_not_follow(self: Any, round: Round, rows: list[int]) -> None:
    """Slots keep their own text whatever the verdict says."""


@planted(StochasticBeams, "_finish", "stochastic_beam")
def weights_without_threshold(self: Any, round: Round, verdict: Verdict, arrived: list[Any], threshold: float) -> None:
    FINISH(self, round, verdict, arrived[: round.request.samples], threshold)


DECIDE, STEP, FINISH = BeamSearch._decide, BeamSearch._step, StochasticBeams._finish


@pytest.mark.parametrize(("target", "name", "bug", "method", "options"), PLANTED, ids=[bug.__name__ for _, _, bug, *_ in PLANTED])
def test_a_planted_bug_is_caught(
    monkeypatch: pytest.MonkeyPatch, target: type, name: str, bug: Callable[..., Any], method: str, options: dict[str, Any]
) -> None:
    claim = dict(CLAIMS)[method]
    monkeypatch.setattr(target, name, bug)
    with pytest.raises(laws.LawBroken):
        getattr(laws, claim)(method, options)
