"""The session of a Mamba-2: all claims of a round in one row of one forward, and a memory that does not lag.

STree (arXiv 2505.14969) as an adapter of the target, so that every drafter has it. Leaf paths need no copies of the state, a
claim that several paths share is read once, and the accepted path is replayed from what was kept of its nodes, without a call.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from treewright.core.answers import Answers
from treewright.core.claims import Forest
from treewright.core.session import Opening, Recorder
from treewright.core.text import Text
from treewright.models.recompute import Reading
from treewright.models.recurrent import DISLIKED, LARGEST_ERROR, LARGEST_ERROR_16_BIT, GoesOn, read_on
from treewright.models.recurrent_session import RecurrentSession
from treewright.models.states import StateLayout, States
from treewright.models.tree_nodes import Nodes, find_mixers


def read_nodes(
    model: GoesOn, nodes: Nodes, forest: Forest, stored: np.ndarray, hidden: bool = False, layers: bool = False
) -> Answers:
    """One forward over the claims that are new in the forest; answers [R, Q, V]. stored [R]: tokens in memory."""
    ids, start = nodes.grow(forest), nodes.read
    positions = stored[:, None] + np.arange(start, start + ids.shape[1])[None]
    with nodes.mixing():
        return model.go_on(ids, positions, None, nodes, 0, hidden, layers)


class TreeScanSession(RecurrentSession):
    """`RecurrentSession` with the tree scan in place of its copies. Columns of a forward: the round's new claims, and in its
    first one the tokens that the memory lacks, which is the frontier alone unless text came from elsewhere."""

    def __init__(
        self, model: GoesOn, layout: StateLayout, mixers: dict[int, nn.Module], text: Text, opening: Opening, record: Recorder
    ) -> None:  # fmt: skip
        super().__init__(model, layout, text, opening, record)
        self._mixers = mixers
        self._nodes: Nodes | None = None
        self._said: Reading | None = None

    def _read_paths(self, forest: Forest, asked: list[tuple[int, list[int]]]) -> list[Reading]:
        if self._nodes is None:
            self._catch_up({row for row, _ in asked}, forest)
            unread = [self._sequence(forest, row, [])[self._memory.stored[row] :] for row in range(forest.rows)]
            self._nodes, self._said = Nodes(self._mixers, self._memory, unread), None
        nodes, begin, first = self._nodes, self._model.timed(), self._nodes.read
        answers = read_nodes(self._model, nodes, forest, self._memory.stored, self._opening.hidden, self._opening.layers)
        self._record("score", forest.rows, nodes.read - first, self._model.timed() - begin)
        self._said = _longer(self._said, Reading.of(answers, slice(None)))
        return [self._said.at((row, nodes.of(row, path))) for row, path in asked]

    @torch.inference_mode()
    def commit(self, paths: Sequence[Sequence[int]]) -> None:
        nodes, own = self._nodes, self._own_paths(paths)
        super().commit(paths)
        if nodes is None:
            return
        taken = []
        for row, path in enumerate(own):
            read = [node for node in nodes.of(row, path) if node < nodes.read]
            # The last token stays out, so that its answer comes with the next claims'.
            taken.append(read[: self._own_length(row) - 1 - int(self._memory.stored[row])])
        self._memory.move(nodes.replayed(taken), np.array([len(path) for path in taken]))
        for row, path in enumerate(taken):
            states = self._states[row]
            if states is not None:
                self._remember(row, states[: len(path)])
                self._states[row] = states[len(path) :]

    def _drop_claims(self) -> None:
        super()._drop_claims()
        self._nodes, self._said = None, None

    def select(self, rows: Sequence[int]) -> None:
        super().select(rows)
        if self._nodes is not None and self._said is not None:
            self._nodes.select(rows)
            self._said = self._said.at(list(rows))

    def cache_bytes(self) -> int:
        return super().cache_bytes() + (0 if self._nodes is None else self._nodes.bytes())


def _longer(known: Reading | None, new: Reading) -> Reading:
    """Answers [R, N, ...] and those of the nodes behind them."""
    if known is None:
        return new
    joined = (None if a is None or b is None else torch.cat([a, b], dim=1) for a, b in zip(known, new, strict=True))
    return Reading(*joined)  # type: ignore[arg-type]


@torch.inference_mode()
def tree_mixers(model: GoesOn, layout: StateLayout) -> dict[int, nn.Module] | None:
    """The mixers of a model whose trees can be scanned, None where it is no Mamba-2 or the scan says something else than the
    model over the whole text. Costs five small forwards, at load time."""
    mixers = find_mixers(model.model, layout)
    if mixers is None:
        return None
    try:
        error = _tree_error(model, layout, mixers)
    except DISLIKED:
        return None
    return mixers if error <= LARGEST_ERROR.get(model.dtype, LARGEST_ERROR_16_BIT) else None


def _tree_error(model: GoesOn, layout: StateLayout, mixers: dict[int, nn.Module]) -> float:
    """Two levels of claims behind a filled state, and one token more behind the state that is replayed."""
    tokens = (1 + np.arange(9) * 5) % int(model.config.vocab_size)
    text, states = tokens[:4], States(layout, 1, 9)
    states.admit(1, 9)
    _, cache = read_on(model, states, [0], [text[:2]])
    states.keep(cache, 0, [0], [0], 2)
    nodes, forest = Nodes(mixers, states, [text[2:]]), Forest(text[None, -1:])
    forest.grow([0, 0], tokens[None, 4:6])
    said = [read_nodes(model, nodes, forest, states.stored).logits]
    forest.grow([1, 2], tokens[None, 6:8])
    said.append(read_nodes(model, nodes, forest, states.stored).logits)
    path = forest.shape.path(0, 4)
    states.move(nodes.replayed([nodes.of(0, path)]), np.array([4]))
    after, _ = read_on(model, states, [0], [tokens[8:]])
    found = torch.cat([*said, after.logits], dim=1)[0].double()
    texts = [np.concatenate([text, forest.path_tokens(0, column)]).astype(np.int64) for column in (3, 4)]
    wholes = [_whole(model, text) for text in (texts[0], np.append(texts[1], tokens[8]))]
    expected = torch.cat([wholes[0][2:5], wholes[1][4:5], wholes[0][5:6], wholes[1][5:]])
    return float((found - expected).square().mean().sqrt() / expected.std())


def _whole(model: GoesOn, tokens: np.ndarray) -> torch.Tensor:
    ids = torch.from_numpy(tokens[None]).to(model.device)
    return model.model(input_ids=ids, use_cache=False).logits[0].double()
