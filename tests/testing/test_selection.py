"""The law of selection holds for what is right and sees what is not; nothing calls selection lossless."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from treewright.core.errors import InputError
from treewright.core.selection import Candidate, Scorer
from treewright.engine.ledger import Ledger
from treewright.models.loading import load
from treewright.models.tables import Table
from treewright.testing import laws
from treewright.testing.certify import certify

FIRST = ("first_finish", {"candidates": 3})


class Selector:
    """A selector by length with one thing wrong."""

    hypotheses = False

    def __init__(self, bug: str) -> None:
        self.bug, self.calls = bug, 0

    def enough(self, ended: Sequence[Candidate], running: int) -> bool:
        return self.bug == "stops too early" or (self.bug == "counts what was cut off" and len(ended) > 1)

    def select(self, prompt: str, candidates: Sequence[Candidate], scorers: Mapping[str, Scorer]) -> list[int]:
        self.calls += 1
        indices, last = list(range(len(candidates))), self.bug == "the last of a tie"
        whole = [not one.finished and self.bug != "takes what was cut off" for one in candidates]
        order = sorted(indices, key=lambda i: (whole[i], -len(candidates[i].tokens), candidates[i].sample * (-1 if last else 1)))
        if self.bug == "remembers":
            return order[self.calls % 2 :] + order[: self.calls % 2]
        if self.bug == "by place in the list":
            return indices
        return order[:1] * 2 if self.bug == "names one twice" else [] if self.bug == "names none" else order


@pytest.mark.parametrize(
    ("bug", "words"),
    [
        ("stops too early", "where no row is given up"),
        ("counts what was cut off", "where no row is given up"),
        ("the last of a tie", "a tie goes to the lowest sample"),
        ("takes what was cut off", "before the one that has finished"),
        ("remembers", "after other choices"),
        ("by place in the list", "turned round"),
        ("names one twice", "none twice"),
        ("names none", "at least one"),
    ],
)
def test_planted_bugs_of_selectors(bug: str, words: str) -> None:
    with pytest.raises(laws.LawBroken, match=words):
        laws.selects(*FIRST, alter=lambda parts: replace(parts, select=Selector(bug)))


def test_without_a_bug_the_same_selector_is_right() -> None:
    assert laws.selects(*FIRST, alter=lambda parts: replace(parts, select=Selector("none"))).worst <= 1e-9


def test_first_by_rounds_is_not_first_by_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine that gives rows up as soon as something has ended lets drafts and queues decide."""

    def at_once(ledger: Any, selector: Any, wanted: int, ended: Any, going_on: int, length: int) -> bool:
        return bool(selector.enough([row.to_candidate() for row in ended], going_on))

    monkeypatch.setattr(Ledger, "_is_enough", at_once)
    with pytest.raises(laws.LawBroken, match=r"(drafts|one row at a time): for prompt"):
        laws.selects(*FIRST)


def test_samples_that_share_their_noise_are_seen() -> None:
    class Copies:
        """A verifier that lets sample 1 repeat what sample 0 draws."""

        def __init__(self, verifier: Any) -> None:
            self.verifier = verifier

        def verify(self, round: Any, law: Any) -> Any:
            round.keys = [(prompt, 0) for prompt, _ in round.keys]
            return self.verifier.verify(round, law)

    with pytest.raises(laws.LawBroken, match="independent plain samples"):
        laws.selects(*FIRST, alter=lambda parts: replace(parts, verify=Copies(parts.verify)))


def test_a_method_that_chooses_nothing_is_told_so() -> None:
    with pytest.raises(InputError, match="'plain' chooses among nothing"):
        laws.selects("plain")


@pytest.mark.parametrize("method", ["mbr", "token_recycling+first_finish"])
def test_selection_is_never_certified_as_lossless(method: str) -> None:
    name = method.split("+")[-1]
    with pytest.raises(InputError, match=f"'{name}' does not claim to be lossless"):
        certify(load(Table(4, 1)), [method])
