"""What a controller notes of the drafts of a chain while they are drawn, and which of them the target took."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch

from treewright.core.answers import Answers
from treewright.core.claims import ABSENT
from treewright.core.errors import CompositionError
from treewright.core.roles import Outcome


@dataclass(frozen=True, slots=True)
class Judged:
    """A draft that the verifier came to. row: its row. values [F]: what was noted of it. accepted: whether it became text."""

    row: int
    values: np.ndarray
    accepted: bool


@dataclass(slots=True)
class Notes:
    """The drafts of one round in the order they were drawn: columns, and values [R, F] noted of each. `begin` says that a round
    begins, which a controller hears of in `claims`."""

    columns: list[int] = field(default_factory=list)
    values: list[np.ndarray] = field(default_factory=list)

    def begin(self) -> None:
        """Forgets the drafts of the round before."""
        self.columns, self.values = [], []

    @property
    def place(self) -> int:
        """The place in the chain of the draft that is noted next, 1 for the first."""
        return len(self.columns) + 1

    def add(self, column: int, values: np.ndarray) -> None:
        """Notes values [R, F] of the draft in `column`."""
        self.columns.append(column)
        self.values.append(values)

    def judged(self, outcome: Outcome) -> list[Judged]:
        """The drafts that the verifier came to, row by row; none where nobody asked about the round's drafts.

        What lies behind the first rejection was never judged. Where a stop or a limit cut the row, no draft was rejected.
        """
        if outcome.verdict.rows is not None:
            return []
        found = []
        for row, path in enumerate(outcome.verdict.paths):
            rejects = len(outcome.emitted[row]) > len(path)
            for place, column in enumerate(self.columns[: len(path) + rejects]):
                if outcome.round.forest.token[row, column] == ABSENT:
                    break
                accepted = place < len(path) and path[place] == column
                found.append(Judged(row, self.values[place][row], accepted))
                if not accepted:
                    break
        return found

    def check_chain(self, outcome: Outcome, method: str) -> None:
        """Raises CompositionError where the round's drafts are no chain that was asked about."""
        if outcome.round.forest.columns > 1 and not self.columns:
            raise CompositionError(
                f"'{method}' decides after each draft of a chain whether to go on, and this recipe's drafter never asked it; "
                "join it to one that drafts a chain from a model, such as speculative_sampling"
            )


def read_draft(answers: Answers, parent: int, tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What a drafter said at `parent`, without temperature and warpers: its probability of each row's token (0 where that is
    absent) and the entropy of its law in nats, each [R] on the host."""
    logits = answers.logits[:, parent]
    law = (logits if logits.dtype == torch.float64 else logits.float()).softmax(-1)
    place = torch.from_numpy(np.maximum(tokens, 0)).to(law.device)
    probability: np.ndarray = law.gather(-1, place[:, None])[:, 0].cpu().numpy()
    return np.where(tokens == ABSENT, 0.0, probability), torch.special.entr(law).sum(-1).cpu().numpy()
