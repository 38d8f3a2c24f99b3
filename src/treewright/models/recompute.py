"""The slow session that is right for every left-to-right model: each claim's whole path is read anew.

Exact tables use it, and transformers models whose memory cannot hold a tree and is not known to go on from a state (ALiBi
without positions, RWKV): there every distinct leaf path becomes a row of one right-padded forward without a cache, which no
causal model can tell from a row of its own. Cost: one forward a round over (prompt + text + path) tokens for every leaf.
A part of the layers reads the text anew, too, since there is no memory that the whole model left.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch

from treewright.core.answers import Answers
from treewright.core.claims import ABSENT, Forest
from treewright.core.exits import ExitHead, Exits
from treewright.core.layers import LayerPlan
from treewright.core.session import Opening, Recorder
from treewright.core.text import Text
from treewright.models.own_columns import OwnColumns, no_embeddings
from treewright.ops.largest import top_ids


class Reading(NamedTuple):
    """What one forward says of a sequence: logits [T, V], and last hidden states [T, H] and the states before each layer
    [T, L, H] where the opening asked for them."""

    logits: torch.Tensor
    hidden: torch.Tensor | None = None
    layers: torch.Tensor | None = None

    def at(self, index: Any) -> Reading:
        """The same outputs at some places of the sequence."""
        hidden, layers = self.hidden, self.layers
        return Reading(
            self.logits[index], None if hidden is None else hidden[index], None if layers is None else layers[index]
        )  # fmt: skip

    @staticmethod
    def of(answers: Answers, index: Any) -> Reading:
        """Some of the answers of a round."""
        return Reading(answers.logits, answers.hidden, None if answers.exits is None else answers.exits.states).at(index)


class Reader(Protocol):
    """Reads sequences of tokens, each with the part of the layers that its plan names, or with the whole model where there are no
    plans; gives for each what `Reading` holds, or the first fields of it."""

    def __call__(
        self, sequences: list[np.ndarray], plans: Sequence[LayerPlan] = ()
    ) -> Sequence[tuple[torch.Tensor | None, ...]]: ...


Mix = dict[int, tuple[np.ndarray, np.ndarray]]
"""Tokens [m] and weights [m] that stand at a place of a sequence, by place."""


class MixReader(Protocol):
    """Reads sequences in which some places are mixed; `plans` as in `Reader`."""

    def __call__(
        self, sequences: list[np.ndarray], mixes: list[Mix], plans: Sequence[LayerPlan] = ()
    ) -> Sequence[tuple[torch.Tensor | None, ...]]: ...


class RecomputeSession(OwnColumns):
    """A session that keeps no memory but the tokens, the live answers, and the answer after the last token it has seen."""

    def __init__(
        self, text: Text, opening: Opening, record: Recorder, read: Reader, head: ExitHead | None = None,
        read_mixed: MixReader | None = None,
    ) -> None:  # fmt: skip
        self._text, self._opening, self._record, self._read = text, opening, record, read
        self._head, self._read_mixed = head, read_mixed
        self._own: list[np.ndarray] = []
        self._root: list[Reading | None] = []
        self._states: list[torch.Tensor | None] = []
        self._base = np.zeros(0, np.int64)
        self._pending = np.zeros(0, np.int64)
        self._answers: Answers | None = None
        self._sketched: tuple[tuple[LayerPlan, ...], Answers] | None = None
        self._in_part = False
        self.seen = np.zeros(0, np.int64)
        self.prompt_top: np.ndarray | None = None

    def admit(self, text: Text, prompts: Sequence[Sequence[int]]) -> None:
        self._text = text
        own = [np.array(prompt, np.int64) for prompt in prompts]
        self._own += own
        self._root += [None] * len(prompts)
        self._states += [None] * len(prompts)
        added = text.prompt[-len(prompts) :]
        self._base = np.concatenate([self._base, added])
        self.seen = np.concatenate([self.seen, added - 1])
        self._read_prompts(own)

    def _read_prompts(self, prompts: list[np.ndarray]) -> None:
        """The prompts of the last rows; here only if something is asked about them."""
        if not (self._opening.prompt_top or self._opening.hidden):
            return
        read = self._forward(prompts, "prefill")
        if self._opening.hidden:
            self._states[-len(prompts) :] = [None if one.hidden is None else one.hidden[:-1] for one in read]
        if self._opening.prompt_top:
            self._note_top([reading.logits for reading in read], max(map(len, prompts)))

    def _note_top(self, read: list[torch.Tensor], longest: int) -> None:
        """Keeps the top ids predicted at the positions that were read, logits [T, V] for each prompt."""
        top = np.full((len(read), longest, self._opening.prompt_top), ABSENT, np.int64)
        for row, logits in enumerate(read):
            top[row, : len(logits)] = top_ids(logits, self._opening.prompt_top)
        self.prompt_top = top

    def root(self) -> Answers:
        return self.score(Forest(self._text.frontier()))

    def score(self, forest: Forest, plans: Sequence[LayerPlan] = ()) -> Answers:
        if self._columns is not None:
            self._start_afresh()
        self._sketched = None
        self._in_part = bool(plans) or (self._in_part and self._answers is not None)
        if self._answers is None or self._answers.logits.shape[1] < forest.columns:
            self._answers = self._answer(forest, self._answers, plans, "score")
        return self._answers

    def sketch(self, forest: Forest, *plans: LayerPlan) -> Answers:
        same = self._sketched is not None and self._sketched[0] == plans
        known = self._sketched[1] if same else self._answers  # type: ignore[index]
        if known is None or known.logits.shape[1] < forest.columns:
            known = self._answer(forest, known, plans, "sketch")
            self._sketched = plans, known
        return known

    def _answer(self, forest: Forest, known: Answers | None, plans: Sequence[LayerPlan], kind: str) -> Answers:
        """Answers of all columns: those that are known, and one forward over the paths to the others."""
        if forest.mix and self._read_mixed is None:
            raise no_embeddings()
        scored = 0 if known is None else known.logits.shape[1]
        if self._answers is None:
            self._pending = self._text.length - self.seen
        asked = [
            (row, path) for row, paths in enumerate(_leaf_paths(forest)) for path in paths
            if max(path, default=0) >= max(scored, 1) or (not scored and self._pending[row])
        ]  # fmt: skip
        read = []
        if asked:
            read = self._read_anew(forest, asked, plans, kind) if plans else self._read_paths(forest, asked)
        found: list[tuple[int, Sequence[int], Reading]] = []
        for row in range(forest.rows):
            kept = self._root[row]
            if known is not None:
                found.append((row, range(scored), Reading.of(known, row)))
            elif not self._pending[row] and kept is not None:
                found.append((row, (0,), kept.at(None)))
        for (row, path), reading in zip(asked, read, strict=True):
            columns, end = [0, *path], len(reading.logits) - len(path)
            # A path begins with what was answered before. The whole model says the same of it again; another plan would not.
            settled = max(scored, int(not self._pending[row])) if plans or self._in_part else 0
            first = sum(column < settled for column in columns)
            found.append((row, columns[first:], reading.at(slice(end - 1 + first, None))))
            if kind == "score":
                self._states[row] = None if reading.hidden is None else reading.hidden[:end]
        return self._laid_out(forest, found)

    def sketch_text(self, first: np.ndarray, count: int, plan: LayerPlan) -> Answers:
        ends = np.minimum(first + count, self._text.length)
        texts = [self._sequence_before(row, int(end)) for row, end in enumerate(ends)]
        read = self._forward(texts, "sketch", [plan] * len(texts))
        logits = read[0].logits.new_zeros(len(texts), count, read[0].logits.shape[-1])
        for row, reading in enumerate(read):
            begin = int(first[row]) - int(self._base[row]) + len(self._own[row])
            logits[row, : len(reading.logits) - begin] = reading.logits[begin:]
        return Answers(logits)

    def _read_paths(self, forest: Forest, asked: list[tuple[int, list[int]]]) -> list[Reading]:
        """What the whole model says of each asked (row, path), from some token at or before the frontier to the path's end."""
        return self._read_anew(forest, asked, (), "score")

    def _read_anew(
        self, forest: Forest, asked: list[tuple[int, list[int]]], plans: Sequence[LayerPlan], kind: str
    ) -> list[Reading]:  # fmt: skip
        """The same from the first token on; `plans` as in `score`."""
        sequences = [self._sequence(forest, row, path) for row, path in asked]
        plans = [plans[row if len(plans) > 1 else 0] for row, _ in asked] if plans else []
        if not forest.mix:
            return self._forward(sequences, kind, plans)
        mixes = []
        for (row, path), sequence in zip(asked, sequences, strict=True):
            places = {column: len(sequence) - len(path) + step for step, column in enumerate(path)}
            mixes.append({places[at]: (mix[0][row], mix[1][row]) for at, mix in forest.mix.items() if at in places})
        return self._forward(sequences, kind, plans, mixes)

    def _laid_out(self, forest: Forest, found: Sequence[tuple[int, Sequence[int], Reading]]) -> Answers:
        """Answers in which each (row, columns, reading) stands in its place, a later one before an earlier; zeros elsewhere."""
        source, count = np.zeros((forest.rows, forest.columns), np.int64), 1
        for row, columns, reading in found:
            source[row, columns] = range(count, count + len(reading.logits))
            count += len(reading.logits)
        places = torch.from_numpy(source)
        logits, hidden, layers = (
            None if outputs[0] is None else torch.cat([torch.zeros_like(outputs[0][:1]), *outputs])[places]
            for outputs in zip(*(reading for _, _, reading in found), strict=True)
        )
        exits = None if layers is None or self._head is None else Exits(layers, self._head)
        return Answers(logits, hidden, exits=exits)  # type: ignore[arg-type]

    def states(self, row: int) -> torch.Tensor:
        states = self._states[row]
        if states is None:
            raise ValueError(f"row {row} has no hidden states: open the session with hidden=True and score first")
        return states

    def commit(self, paths: Sequence[Sequence[int]]) -> None:
        self._sketched = None
        if self._answers is None:
            return
        paths = self._own_paths(paths)
        hidden, scored = self._answers.hidden, self._answers.logits.shape[1]
        for row, path in enumerate(paths):
            kept = [column for column in path if column < scored]
            last, states = kept[-1] if kept else 0, self._states[row]
            self._root[row] = Reading.of(self._answers, (row, last))
            if hidden is not None and states is not None:
                self._states[row] = torch.cat([states, hidden[row, kept]])
            self.seen[row] += self._pending[row] + len(kept)
        self._drop_claims()

    def _start_afresh(self) -> None:
        """Forgets claims that were adopted, since others are asked about now."""
        self._drop_claims()

    def _drop_claims(self) -> None:
        self._answers, self._columns = None, None

    def select(self, rows: Sequence[int]) -> None:
        index, self._sketched = list(rows), None
        self._own = [self._own[row] for row in index]
        self._root, self._states = [self._root[row] for row in index], [self._states[row] for row in index]
        self._base, self.seen = self._base[index], self.seen[index]
        if self._answers is not None:
            self._answers, self._pending = self._answers.select(index), self._pending[index]
            self._columns = None if self._columns is None else self._columns[index]

    def cache_bytes(self) -> int:
        return 0

    def _sequence(self, forest: Forest, row: int, path: list[int]) -> np.ndarray:
        return np.concatenate([self._sequence_before(row, self._text.length[row]), forest.token[row, path]])

    def _sequence_before(self, row: int, end: int) -> np.ndarray:
        """What the model reads of a row before this place of the text; at least its own prompt."""
        return np.concatenate([self._own[row], self._text.token[row, self._base[row] : end]])

    def _forward(
        self, sequences: list[np.ndarray], kind: str, plans: Sequence[LayerPlan] = (), mixes: list[Mix] | None = None
    ) -> list[Reading]:
        begin = time.perf_counter()
        if mixes is not None and self._read_mixed is not None:
            found = self._read_mixed(sequences, mixes, plans)
        else:
            found = self._read(sequences, plans)
        read = [Reading(*outputs) for outputs in found]  # type: ignore[arg-type]
        self._tell(kind, len(sequences), max(map(len, sequences)), time.perf_counter() - begin, plans)
        return read


def _leaf_paths(forest: Forest) -> list[list[list[int]]]:
    """For each row, paths (columns) that together visit every present claim once or more: what a claim sees, by depth.

    Right for trees, and for orphans that see one claim of each depth above their own (a lookahead window).
    """
    shape, known, paths = forest.shape, {}, []
    for row, there in enumerate(forest.token != ABSENT):
        view = 0 if shape.shared else row
        key = view, there.tobytes()
        if key not in known:
            present = np.flatnonzero(there[1:]) + 1
            known[key] = _paths_among(present, shape.visible[view], shape.depth[view]) if len(present) else [[]]
        paths.append(known[key])
    return paths


def _paths_among(present: np.ndarray, visible: np.ndarray, depth: np.ndarray) -> list[list[int]]:
    seen, depths = visible[present[:, None], present], depth[present].tolist()
    leaves = np.flatnonzero(seen.sum(axis=0) == 1)
    return [present[sorted(np.flatnonzero(seen[leaf]).tolist(), key=depths.__getitem__)].tolist() for leaf in leaves] or [[]]
