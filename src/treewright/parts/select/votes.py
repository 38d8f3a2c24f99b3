"""Votes: answers found in texts by a regular expression, counted and ordered."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from decimal import Decimal

from treewright.core.errors import InputError
from treewright.core.selection import Candidate

LAST_NUMBER = r"[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?"
"""The default pattern of an answer; the last match counts."""


def compiled(name: str, pattern: str) -> re.Pattern[str]:
    """The pattern of an answer. Raises InputError for one that is no regular expression or has several groups."""
    try:
        found = re.compile(pattern)
    except re.error as error:
        raise InputError(f"{name} is {pattern!r}, which is no regular expression ({error}); correct it") from error
    if found.groups > 1:
        raise InputError(f"{name} has {found.groups} groups; allowed: one around the answer, or none; write others as (?:...)")
    return found


def answer_of(pattern: re.Pattern[str], text: str) -> str | None:
    """The last match of the pattern, or of its group, in canonical form: numbers by value, all else without case and outer
    blanks. None where nothing matches, or only blanks."""
    matches = [match.group(pattern.groups) for match in pattern.finditer(text)]
    found = next((match for match in reversed(matches) if match and match.strip()), None)
    if found is None:
        return None
    found = " ".join(found.split()).casefold()
    if re.fullmatch(LAST_NUMBER, found):
        number = Decimal(found.replace(",", ""))
        return format(number.normalize() if number else Decimal(0), "f")
    return found


def elect(
    candidates: Sequence[Candidate], answers: Sequence[str | None], voters: Mapping[int, float], merit: Sequence[float]
) -> list[int]:
    """All indices: the candidates of the answer with the most votes first, the rest by the votes of their own.

    voters: {index: weight} of those who vote. Answers with as many votes stand in the order of their lowest sample. Within an
    answer voters come first, then finished candidates, then larger merit, then the lowest sample.
    """
    given: dict[str, list[float]] = {}
    first: dict[str, int] = {}
    for index, answer in enumerate(answers):
        if answer is not None:
            given.setdefault(answer, []).append(voters.get(index, 0.0))
            first[answer] = min(first.get(answer, candidates[index].sample), candidates[index].sample)
    votes = {answer: math.fsum(weights) for answer, weights in given.items()}

    def place(index: int) -> tuple[float, ...]:
        answer, one = answers[index], candidates[index]
        counted = (-votes[answer], first[answer]) if answer is not None and votes[answer] > 0 else (0.0, 0)
        return (*counted, index not in voters, not one.finished, -merit[index], one.sample)

    return sorted(range(len(candidates)), key=place)
