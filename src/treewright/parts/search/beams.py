"""Beam search in rows: every row of a prompt is a beam, and each round's verdict says which beam each row continues."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from treewright.core.roles import Completion, Round, TargetLaw, Verdict
from treewright.parts.search.hypotheses import BestScore, descending, log_law, new_tokens, normalised, room

EarlyStopping = bool | Literal["never"]


@dataclass(frozen=True, slots=True)
class Child:
    """A beam's row continued by one token of this log-probability; `total` is that of the whole continuation."""

    row: int
    token: int
    log_probability: float
    total: float


@dataclass(slots=True)
class BeamStep:
    """What one group of beams does in a round: children that go on, best first, and children that end."""

    running: list[Child] = field(default_factory=list)
    ended: list[Child] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class BeamSettings:
    """width: beams of a prompt. groups: they search one after another in so many groups, each for itself. strength: what a
    token loses for each beam of an earlier group that took it at this step; it steers the choice and is not remembered.
    length_penalty, early_stopping: as in `BeamSearch`."""

    width: int
    length_penalty: float
    early_stopping: EarlyStopping
    groups: int = 1
    strength: float = 0.0


class BeamSearch(BestScore):
    """Verifier and selector of beam search, in one group or several.

    Of all children of a group's beams the best `width` count: those that end become hypotheses, and the best that do not
    end are the next beams, always `width` of them. A group is done when it holds `width` hypotheses and no beam can still
    beat the worst of them; `early_stopping` says what can: True, none ever; False, a beam's score as if it ended now;
    "never", the best score it could have at any length still allowed.
    """

    def __init__(self, settings: BeamSettings) -> None:
        super().__init__(settings.length_penalty, settings.width // settings.groups)
        self._settings = settings
        self._hypotheses: dict[tuple[int, int], list[float]] = {}

    def verify(self, round: Round, law: TargetLaw) -> Verdict:
        verdict = open_verdict(round.rows)
        for prompt, rows in rows_by_prompt(round.keys):
            counts: np.ndarray | None = None
            for group, own in self._groups(round, rows):
                step = self._step(round, law, own, counts)
                self._decide(round, verdict, (prompt, group), own, step)
                if self._settings.groups > 1:
                    counts = np.zeros(round.vocabulary) if counts is None else counts
                    np.add.at(counts, [child.token for child in (*step.running, *step.ended)], 1.0)
        return verdict

    def _groups(self, round: Round, rows: Sequence[int]) -> Iterator[tuple[int, list[int]]]:
        """The groups of a prompt that still search, and their rows; a slot belongs to one group for good."""
        for group in range(self._settings.groups):
            own = [row for row in rows if round.keys[row][1] // self._width == group]
            if own:
                yield group, own

    def _step(self, round: Round, law: TargetLaw, own: Sequence[int], counts: np.ndarray | None) -> BeamStep:
        """The best children of a group. `counts` [V]: beams of earlier groups that took each token at this step."""
        beams = distinct(round, own)
        laws = np.stack([log_law(law, row) for row in beams])
        totals = laws + np.array([round.log_weight[row] for row in beams])[:, None]
        ranked = totals if counts is None else totals - self._settings.strength * counts
        last, size, step = room(round, own[0]) == 1, totals.shape[1], BeamStep()
        for rank, index in enumerate(descending(ranked.reshape(-1), self._width * (1 + len(round.request.ends)))):
            place, token = divmod(index, size)
            if (last and rank == self._width) or len(step.running) == self._width:
                break
            child = Child(beams[place], token, float(laws[place, token]), float(totals[place, token]))
            if not round.would_end(child.row, [token]):
                step.running.append(child)
            elif rank < self._width:
                step.ended.append(child)
        return step

    def _decide(self, round: Round, verdict: Verdict, key: tuple[int, int], own: Sequence[int], step: BeamStep) -> None:
        hypotheses = self._hypotheses.setdefault(key, [])
        length = new_tokens(round, own[0]) + 1
        for child in step.ended:
            score = normalised(child.total, length, self._settings.length_penalty)
            if len(hypotheses) < self._width or score > hypotheses[-1]:
                verdict.completed.append(Completion(child.row, [], child.token, child.log_probability))
                hypotheses[:] = sorted([*hypotheses, score], reverse=True)[: self._width]
        last = room(round, own[0]) == 1
        if not step.running and not step.ended and not hypotheses:
            die(verdict, own, max(distinct(round, own), key=lambda row: round.log_weight[row]))
        elif not step.running or (not last and self._done(round, own[0], hypotheses, step.running[0].total, length)):
            drop(verdict, own)
        else:
            place(verdict, own, step.running, idle=not last)

    def _done(self, round: Round, row: int, hypotheses: Sequence[float], best: float, length: int) -> bool:
        settings = self._settings
        if len(hypotheses) < self._width:
            return False
        if settings.early_stopping is True:
            return True
        if settings.early_stopping == "never" and settings.length_penalty > 0:
            length = int(round.text.limit[row] - round.text.prompt[row])
        return normalised(best, length, settings.length_penalty) <= hypotheses[-1]


def rows_by_prompt(keys: Sequence[tuple[int, int]]) -> list[tuple[int, list[int]]]:
    """The rows of each prompt, in the order of their slots."""
    rows: dict[int, list[int]] = {}
    for row, (prompt, _) in sorted(enumerate(keys), key=lambda entry: entry[1]):
        rows.setdefault(prompt, []).append(row)
    return list(rows.items())


def distinct(round: Round, rows: Sequence[int]) -> list[int]:
    """The rows that hold a beam each: before the first token all are one, and a row of weight zero holds none."""
    if new_tokens(round, rows[0]) == 0:
        return [rows[0]]
    return [row for row in rows if round.log_weight[row] > -np.inf]


def open_verdict(rows: int) -> Verdict:
    """A verdict under which every row stays as it is, to be written into."""
    return Verdict(
        [[] for _ in range(rows)], [-1] * rows, log_weight=[[] for _ in range(rows)], finished=[False] * rows,
        rows=list(range(rows)), dropped=[False] * rows,
    )  # fmt: skip


def drop(verdict: Verdict, rows: Sequence[int]) -> None:
    """Gives these rows up."""
    for row in rows:
        verdict.dropped[row] = True  # type: ignore[index]


def die(verdict: Verdict, rows: Sequence[int], best: int) -> None:
    """Ends a search that has nowhere to go and found nothing: its best row is a dead end, the others are given up."""
    drop(verdict, [row for row in rows if row != best])
    verdict.finished[best], verdict.log_weight[best] = True, [-np.inf]  # type: ignore[index]


def place(verdict: Verdict, slots: Sequence[int], children: Sequence[Child], idle: bool) -> list[int]:
    """Puts children into slots, each into its own beam's where that is free, so that few rows are copied; the slot of each.
    Slots that are left over follow the first child with weight zero (`idle`), or are given up."""
    free, chosen = list(slots), dict[int, int]()
    for number, child in enumerate(children):
        if child.row in free:
            chosen[number] = child.row
            free.remove(child.row)
    for number in range(len(children)):
        if number not in chosen:
            chosen[number] = free.pop(0)
    for number, child in enumerate(children):
        _continue(verdict, chosen[number], child, child.log_probability)
    for slot in free:
        if idle:
            _continue(verdict, slot, children[0], -np.inf)
    if not idle:
        drop(verdict, free)
    return [chosen[number] for number in range(len(children))]


def _continue(verdict: Verdict, slot: int, child: Child, log_weight: float) -> None:
    verdict.rows[slot], verdict.extra[slot] = child.row, child.token  # type: ignore[index]
    verdict.log_weight[slot] = [log_weight]  # type: ignore[index]
