"""A draft model made from the target: the same network under other logits, so that it agrees often and not always."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from treewright.core.answers import Answers
from treewright.core.claims import Forest
from treewright.core.session import Model, Opening, Recorder, Session
from treewright.core.text import Text

FLATTER, NOISE = 0.7, 1.0


class Distorted:
    """Answers with 0.7 times the logits of `model` plus a fixed normal number (standard deviation 1) for each token id."""

    def __init__(self, model: Model, seed: int = 0) -> None:
        self._model = model
        self.capabilities = model.capabilities
        generator = np.random.default_rng(seed)
        self._bias = torch.from_numpy(generator.normal(size=model.capabilities.vocabulary) * NOISE)

    def open(self, text: Text, opening: Opening, record: Recorder) -> Session:
        return DistortedSession(self._model.open(text, opening, record), self._bias)  # type: ignore[return-value]


class DistortedSession:
    """A session whose answers are distorted; all else is the session it wraps."""

    def __init__(self, session: Session, bias: torch.Tensor) -> None:
        self._session, self._bias = session, bias

    @property
    def seen(self) -> np.ndarray:
        return self._session.seen

    @property
    def prompt_top(self) -> np.ndarray | None:
        return self._session.prompt_top

    def admit(self, text: Text, prompts: Sequence[Sequence[int]]) -> None:
        self._session.admit(text, prompts)

    def root(self) -> Answers:
        return self._distort(self._session.root())

    def score(self, forest: Forest) -> Answers:
        return self._distort(self._session.score(forest))

    def states(self, row: int) -> torch.Tensor:
        return self._session.states(row)

    def adopt(self, columns: np.ndarray) -> None:
        self._session.adopt(columns)

    def commit(self, paths: Sequence[Sequence[int]]) -> None:
        self._session.commit(paths)

    def select(self, rows: Sequence[int]) -> None:
        self._session.select(rows)

    def cache_bytes(self) -> int:
        return self._session.cache_bytes()

    def _distort(self, answers: Answers) -> Answers:
        bias = self._bias.to(answers.logits)
        return Answers(answers.logits * FLATTER + bias, answers.hidden, answers.field, answers.exits)
