"""A law for model families: what a session says of a claim is what the bare model says after that path."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from treewright.core.answers import Answers
from treewright.core.claims import ABSENT, Forest
from treewright.core.session import Opening, Session
from treewright.core.text import Text
from treewright.models.loading import Loaded
from treewright.testing.reports import LawBroken

Reference = Callable[[Sequence[int], Sequence[int]], np.ndarray]
"""Logits [V] after a prompt and the tokens that follow it."""

ROWS, CLAIMS = 3, 12
ROOM, MOST_A_ROUND = 64, 9
"""Tokens that all rounds may add to a prompt, and one round at most."""

RELATIVE = {torch.float64: 1e-9, torch.float32: 1e-4, torch.bfloat16: 0.1, torch.float16: 0.02}
"""The largest error that passes, as a part of the standard deviation of the logits. Half precisions differ between any two
ways to arrange the same sum; a wrong slot or position shows far above this."""


@dataclass(slots=True)
class ScoringReport:
    """largest: the largest |logit| error over all claims. relative: root mean square error as a part of the logits' standard
    deviation, at the worst claim. claims: how many were compared."""

    largest: float = 0.0
    relative: float = 0.0
    claims: int = 0

    def add(self, found: np.ndarray, expected: np.ndarray) -> float:
        """Counts one claim; its relative error (infinite where a logit is not finite)."""
        if not np.isfinite(found).all():
            return float("inf")
        error = found.astype(np.float64) - expected
        relative = float(np.sqrt((error**2).mean()) / max(float(expected.std()), 1e-12))
        self.largest = max(self.largest, float(np.abs(error).max()))
        self.relative = max(self.relative, relative)
        self.claims += 1
        return relative

    def to_json(self) -> dict[str, Any]:
        """The report as plain data."""
        return asdict(self)


def no_record(kind: str, rows: int, columns: int, seconds: float, share: float = 1.0) -> None:
    """A recorder that forgets."""


def bare_reference(model: Loaded) -> Reference:
    """Logits from one forward of the transformers model over the whole sequence, without a cache (over the prompt and the
    decoder's text, where a model reads them apart); for a model that is its own protocol (a table), from a session that
    reads the sequence as a prompt."""
    if model.model is model.protocol:
        return lambda prompt, new: fresh_root(model, [*prompt, *new])
    start = model.protocol.capabilities.decoder_start

    @torch.no_grad()
    def read(prompt: Sequence[int], new: Sequence[int]) -> np.ndarray:
        ids = {"input_ids": [*prompt, *new]} if start is None else {"input_ids": prompt, "decoder_input_ids": [*start, *new]}
        inputs = {name: torch.tensor([list(sequence)], device=model.model.device) for name, sequence in ids.items()}
        return model.model(**inputs, use_cache=False).logits[0, -1].double().cpu().numpy()

    return read


def fresh_root(model: Loaded, sequence: Sequence[int]) -> np.ndarray:
    """Logits [V] after a sequence that a new session reads as its prompt."""
    text = Text(len(sequence) + 1)
    text.admit([list(sequence)], [len(sequence) + 1])
    session = model.protocol.open(text, Opening(1, 1, len(sequence) + 1), no_record)
    session.admit(text, [list(sequence)])
    return session.root().row(0, 0).astype(np.float64)


def read_texts(
    model: Loaded, prompts: Sequence[Sequence[int]], texts: Sequence[Sequence[int]], rows: int, columns: int
) -> list[list[np.ndarray]]:
    """The logits [V] that predict each token of each text after its prompt, from forwards of up to `rows` texts and
    `columns` tokens at a time. Cost: the longest text's length / columns calls for every `rows` texts."""
    found: list[list[np.ndarray]] = []
    for start in range(0, len(texts), rows):
        found += _read_together(model, prompts[start : start + rows], texts[start : start + rows], columns)
    return found


def _read_together(
    model: Loaded, prompts: Sequence[Sequence[int]], texts: Sequence[Sequence[int]], columns: int
) -> list[list[np.ndarray]]:
    limits = [len(prompt) + len(text) for prompt, text in zip(prompts, texts, strict=True)]
    known = Text(max(limits))
    known.admit(prompts, limits)
    session = model.protocol.open(known, Opening(columns, len(prompts), max(limits)), no_record)
    session.admit(known, prompts)
    found: list[list[np.ndarray]] = [[] for _ in texts]
    for start in range(0, max(map(len, texts)), columns):
        blocks = [list(text[start : start + columns]) for text in texts]
        forest = Forest(known.frontier())
        claims = np.full((len(texts), columns - 1), ABSENT)
        for row, block in enumerate(blocks):
            claims[row, : max(0, len(block) - 1)] = block[:-1]
        if columns > 1:
            forest.grow(range(columns - 1), claims)
        answers = session.score(forest)
        for row, block in enumerate(blocks):
            found[row] += [answers.row(row, column).copy() for column in range(len(block))]
            known.append(row, block)
        session.commit([list(range(1, len(block))) for block in blocks])
    return found


def tolerance_of(model: Loaded) -> float:
    """The relative error that passes in the model's precision."""
    return RELATIVE.get(getattr(model.model, "dtype", torch.float64), 1e-9)


def tree_scoring(
    model: Loaded,
    *,
    reference: Reference | None = None,
    prompts: Sequence[Sequence[int]] | None = None,
    rounds: int = 6,
    seed: int = 0,
    tolerance: float | None = None,
) -> ScoringReport:
    """Every claim of a tree is answered as the bare model answers after the claim's path.

    A session over a ragged batch goes through rounds that hold what methods do: trees shared by the rows and trees of each
    row's own, absent claims, levels added to live claims, the root asked for first, rows that accept anything from nothing
    to a whole path, forced tokens that were never claimed, rounds without a bonus token, rows forked, reordered and joining
    later. After each commit the memory must hold the accepted tokens and nothing else.

    reference: logits after a prompt and what follows (by default the model's own forward without a cache). prompts: three
    of them; random by default. tolerance: the relative error that passes (see `RELATIVE`). Raises LawBroken. Cost: two to
    three calls a round, and one bare forward for every claim.
    """
    allowed = tolerance_of(model) if tolerance is None else tolerance
    trial = _Trial(model, reference or bare_reference(model), prompts, seed, allowed)
    for number in range(rounds):
        if trial.is_full():
            break
        trial.round(number)
        if number == 2:
            trial.select([2, 0, 0])
        if number == 3:
            trial.select([0, 2])
            trial.join()
    return trial.report


class _Trial:
    """A session, its text, and the reference it is compared with."""

    def __init__(
        self, model: Loaded, reference: Reference, prompts: Sequence[Sequence[int]] | None, seed: int, tolerance: float
    ) -> None:
        self._reference, self._tolerance, self._name = reference, tolerance, model.name
        self._chance = np.random.default_rng(seed)
        self._vocabulary = model.protocol.capabilities.vocabulary
        self._known: dict[tuple[tuple[int, ...], tuple[int, ...]], np.ndarray] = {}
        self.report = ScoringReport()
        prompts = prompts or [self._tokens(length) for length in (11, 1, 6)]
        has = model.protocol.capabilities
        longest = max(len(prompt) for prompt in prompts) + ROOM
        room = None if has.max_length is None else has.max_length + min(len(p) - len(has.own_text(p)) for p in prompts)
        self._length = longest if room is None else min(room, longest)
        self._text = Text(self._length)
        self._session: Session = model.protocol.open(self._text, Opening(CLAIMS, ROWS, self._length), no_record)
        self._admit(prompts)

    def _tokens(self, count: int) -> list[int]:
        return self._chance.integers(0, self._vocabulary, count).tolist()

    def _admit(self, prompts: Sequence[Sequence[int]]) -> None:
        self._text.admit(prompts, [self._length] * len(prompts))
        self._session.admit(self._text, prompts)

    def join(self) -> None:
        """One more row enters."""
        self._admit([self._tokens(7)])

    def is_full(self) -> bool:
        """True where a further round might not fit into the model's positions."""
        return bool((self._text.remaining() < MOST_A_ROUND).any())

    def select(self, rows: list[int]) -> None:
        self._text.select(rows)
        self._session.select(rows)

    def round(self, number: int) -> None:
        forest = Forest(self._text.frontier())
        if number % 3 == 1:
            self._compare(forest, self._session.root(), number)
        if number != 4:
            forest.grow([0, 0, 1, 1, 2, 3], self._claims(6, absent=number % 2 == 1))
        self._compare(forest, self._session.score(forest), number)
        if number % 2 == 0:
            parents = self._chance.integers(0, forest.columns, (forest.rows, 3))
            forest.grow(parents, self._claims(3, absent=True))
            self._compare(forest, self._session.score(forest), number)
        self._accept(forest, number)

    def _claims(self, count: int, absent: bool) -> np.ndarray:
        token = self._chance.integers(0, self._vocabulary, (self._text.rows, count))
        return np.where(absent & (self._chance.random(token.shape) < 0.3), ABSENT, token)

    def _accept(self, forest: Forest, number: int) -> None:
        paths = []
        for row in range(forest.rows):
            ends = [column for column in range(forest.columns) if self._path(forest, row, column) is not None]
            path = forest.shape.path(row, int(self._chance.choice(ends)))
            extra = 0 if number == 3 else 4 if number == 1 and row == 0 else 1
            self._text.append(row, forest.token[row, path].tolist() + self._tokens(extra))
            paths.append(path)
        self._session.commit(paths)

    @staticmethod
    def _path(forest: Forest, row: int, column: int) -> list[int] | None:
        """Claimed tokens down to `column`, None where one of them is absent."""
        tokens = forest.path_tokens(row, column)
        return None if ABSENT in tokens else tokens

    def _compare(self, forest: Forest, answers: Answers, number: int) -> None:
        for row in range(forest.rows):
            for column in range(min(forest.columns, answers.logits.shape[1])):
                path = self._path(forest, row, column)
                if path is None:
                    continue
                given, sequence = int(self._text.prompt[row]), (*self._text.of(row).tolist(), *path)
                asked = sequence[:given], sequence[given:]
                if asked not in self._known:
                    self._known[asked] = self._reference(*asked).astype(np.float64)
                relative = self.report.add(answers.row(row, column), self._known[asked])
                if not relative <= self._tolerance:
                    raise LawBroken(
                        f"tree scoring on '{self._name}': in round {number}, row {row}, the answer to claim {column} (path "
                        f"{path}, after {len(self._text.of(row))} tokens) differs from the bare model's by {relative:.3g} of "
                        f"the logits' standard deviation; allowed {self._tolerance:g}"
                    )
