"""The session of a causal model: which tokens lie in which slot, what a round asks, what a commit keeps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from treewright.core.answers import Answers
from treewright.core.claims import ABSENT, Forest
from treewright.core.layers import LayerPlan
from treewright.core.session import Opening, Recorder
from treewright.core.text import Text
from treewright.models.blocks import Block, Mix, TreeScorer, padded
from treewright.models.compiled import LEAST_SLOTS, bucket, key_bucket
from treewright.models.masks import Masks, TreeMasks
from treewright.models.memory import Memory
from treewright.models.own_columns import OwnColumns, no_embeddings
from treewright.models.prompt_tops import read_tops
from treewright.models.sizes import BLOCK_STEP, CHUNK_STEP, KEY_STEP, builds_kernels, power_of_two, rounded

CHUNK = 512
SPARE = 8
"""Scratch slots beside the claims, for pending tokens; more pending tokens are read like a prompt."""


def reserved(rows: int, claims: int, length: int) -> tuple[int, int, int]:
    """What a session reserves for rows of `length` tokens and so many claims each: rows, scratch slots, and slots of a row."""
    scratch = rounded(claims + SPARE, 16)
    return power_of_two(rows), scratch, scratch + rounded(length + 1, KEY_STEP)


class CausalSession(OwnColumns):
    """Slots: pending tokens of a round are right-aligned in [0, P), claim c lies in slot P - 1 + c, the text from S on.

    seen [R] counts tokens of the engine's text; `_shift` [R] is the own prompt's length minus the text's prompt length.
    """

    def __init__(self, model: TreeScorer, text: Text, opening: Opening, record: Recorder) -> None:
        self._model, self._text, self._opening, self._record = model, text, opening, record
        _, self._scratch, _ = reserved(opening.rows, opening.claims, opening.length)
        self._few_widths = builds_kernels(model.device, model.dtype)
        self._memory: Memory | None = None
        self._masks = TreeMasks(model.windows, self._scratch, model.dtype, model.device)
        self.seen = np.zeros(0, np.int64)
        self._shift = np.zeros(0, np.int64)
        self._prompt_end = np.zeros(0, np.int64)
        self._pending = np.zeros(0, np.int64)
        self._lead = 0
        self._scored = 0
        self._answers: Answers | None = None
        self._sketched: tuple[tuple[LayerPlan, ...], int, Answers] | None = None
        self._last: tuple[Answers, list[int]] | None = None
        self._states: list[torch.Tensor] = []
        self._block_states: torch.Tensor | None = None
        self._slot_position = np.zeros((0, self._scratch), np.int64)
        self.prompt_top: np.ndarray | None = None

    @property
    def _stored(self) -> np.ndarray:
        """Text slots in use, [R]."""
        return self.seen + self._shift

    def admit(self, text: Text, prompts: Sequence[Sequence[int]]) -> None:
        self._text = text
        before = len(self.seen)
        lengths = np.array([len(prompt) for prompt in prompts])
        base = text.prompt[before:]
        if self._last is not None:
            self._last = self._roots(added=len(prompts)), [0] * text.rows
        self._shift = np.concatenate([self._shift, lengths - base])
        self.seen = np.concatenate([self.seen, base - 1])
        self._prompt_end = np.concatenate([self._prompt_end, [prompt[-1] for prompt in prompts]])
        self._slot_position = np.zeros((len(self.seen), self._scratch), np.int64)
        self._reserve(before + len(prompts), self._opening.length + int(self._shift.max()))
        step = CHUNK_STEP if self._few_widths else 1
        block = np.zeros((len(prompts), rounded(int(lengths.max()) - 1, step) + 1), np.int64)
        for row, prompt in enumerate(prompts):
            block[row, : len(prompt)] = prompt
        self._read_prompts(range(before, before + len(prompts)), block, lengths)

    def _reserve(self, rows: int, length: int) -> None:
        slots = self._scratch + self._span(max(length + 1, 0 if self._model.compiled is None else LEAST_SLOTS))
        wanted = power_of_two(max(rows, self._opening.rows))
        if self._memory is None:
            self._memory = self._model.new_memory(wanted, self._scratch, slots)
        elif rows > self._memory.rows or slots > self._memory.slots:
            self._memory = self._memory.grown(wanted, slots)

    def _span(self, keys: int) -> int:
        """The text slots that a block attends to where `keys` are in use; compiled blocks have few sizes, for each is a graph."""
        return rounded(keys, KEY_STEP) if self._model.compiled is None else key_bucket(keys)

    def _read_prompts(self, rows: range, block: np.ndarray, lengths: np.ndarray) -> None:
        """Prefill of all but the last prompt token, right-padded: what follows a row's end is masked until overwritten."""
        top_count, tops, states = self._opening.prompt_top, [], []
        head = self._model.head if top_count and len(rows) > 1 else None
        real = np.arange(block.shape[1]) < (lengths - 1)[:, None]
        for start in range(0, block.shape[1] - 1, CHUNK):
            end = min(start + CHUNK, block.shape[1] - 1)
            read = self._read_chunk(rows, block[:, start:end], start, 0 if top_count and head is None else 1, head is not None)
            states.append(read.hidden)
            if top_count:
                tops.append(read_tops(read, real[:, start:end], head, top_count))
        if self._opening.hidden:
            hidden = torch.cat(states, dim=1) if states else self._no_states(len(rows))  # type: ignore[arg-type]
            self._states += [hidden[row, : size - 1] for row, size in enumerate(lengths.tolist())]
        if top_count:
            none = np.full((len(rows), 1, top_count), ABSENT)
            self.prompt_top = np.concatenate([*tops, none], axis=1)[:, : int(lengths.max())]

    def _no_states(self, rows: int) -> torch.Tensor:
        return torch.zeros(rows, 0, self._model.config.hidden_size, dtype=self._model.dtype, device=self._model.device)

    def _read_chunk(self, rows: range, chunk: np.ndarray, start: int, keep: int, hidden: bool = False) -> Answers:
        """Reads tokens straight into the text slots of `rows`, after `start` tokens that are there."""
        first, count = self._scratch + start, chunk.shape[1]
        window = self._memory.window(rows, range(first, first + count), range(self._scratch, first + count))  # type: ignore[union-attr]
        known = np.arange(start + count)[None]
        positions = np.broadcast_to(known[:, start:], chunk.shape).copy()
        begin = self._model.timed()
        block = Block(chunk.copy(), self._within_context(positions), self._masks.causal(start, count), known)
        answers = self._model.forward(block, window, keep, hidden or self._opening.hidden)
        self._record("prefill", len(rows), count, self._model.timed() - begin)
        return answers

    def root(self) -> Answers:
        return self.score(Forest(self._text.frontier()))

    @torch.inference_mode()
    def score(self, forest: Forest, plans: Sequence[LayerPlan] = ()) -> Answers:
        if self._columns is not None:
            self._drop_claims()
        self._sketched = None
        if self._scored == 0:
            block = self._first_block(forest, plans, "score")
            self._answers = self._assemble(block, forest.columns)
            self._block_states, self._scored = None if block is None else block.hidden, forest.columns
        elif forest.columns > self._scored:
            self._next_block(forest, plans)
        return self._answers  # type: ignore[return-value]

    @torch.inference_mode()
    def sketch(self, forest: Forest, *plans: LayerPlan) -> Answers:
        known = self._sketched if self._sketched is not None and self._sketched[0] == plans else None
        begin = self._scored if known is None else known[1]
        if begin == 0:
            answers = self._assemble(self._first_block(forest, plans, "sketch"), forest.columns)
        elif forest.columns == begin:
            return self._answers if known is None else known[2]  # type: ignore[return-value]
        else:
            before: Answers = self._answers if known is None else known[2]  # type: ignore[assignment]
            answers = before.merge(self._forward(forest, begin, plans, "sketch"), _side_by_side)
        self._sketched = plans, forest.columns, answers
        return answers

    @torch.inference_mode()
    def sketch_text(self, first: np.ndarray, count: int, plan: LayerPlan) -> Answers:
        if self._scored or self._sketched is not None:
            raise ValueError("text is sketched before the claims of a round are asked about: both use the same slots")
        if count > self._scratch:
            raise ValueError(f"{count} tokens do not fit into {self._scratch} slots; open the session with as many claims")
        block = np.zeros((len(first), count), np.int64)
        for row, begin in enumerate(first.tolist()):
            tokens = self._tokens(row, begin, min(count, int(self._text.length[row]) - begin))
            block[row, : len(tokens)] = tokens
        own = first + self._shift
        positions = own[:, None] + np.arange(count)
        seen = np.zeros((len(first), count, self._scratch), bool)
        seen[:, :, :count] = np.tril(np.ones((count, count), bool))
        self._slot_position[:, :count] = positions
        keys = self._span(max(1, int(own.max())))
        masks = self._masks.general(seen, own, (positions, self._slot_position), 0, count, keys)
        start = self._model.timed()
        answers = self._read(block, self._within_context(positions), masks, range(count), keys, [plan])
        self._tell("sketch", *block.shape, self._model.timed() - start, [plan])
        return answers

    def _first_block(self, forest: Forest, plans: Sequence[LayerPlan], kind: str) -> Answers | None:
        """Outputs of the pending tokens and of all claims so far, at offset 0; None where there are neither."""
        self._pending = self._text.length - self.seen
        # A drafter asks in several blocks, so room is kept for all claims the round may still add.
        room = self._memory.scratch - (max(forest.columns, self._opening.claims) - 1)  # type: ignore[union-attr]
        if self._pending.max() > room:
            self._swallow()
        self._lead = int(self._pending.max())
        return self._forward(forest, 0, plans, kind) if self._lead + forest.columns > 1 else None

    def _assemble(self, block: Answers | None, columns: int) -> Answers:
        """Answers by column: the block's outputs from the frontier on, the kept root where nothing was pending."""
        lead, root = self._lead, None if self._pending.all() else self._roots()

        def place(outputs: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
            if lead == 0:
                return torch.cat([kept, outputs[:, : columns - 1]], dim=1)
            # In place: a row without pending tokens keeps nothing of this column at the commit.
            outputs = outputs[:, lead - 1 : lead - 1 + columns]
            idle = torch.from_numpy(self._pending == 0).to(kept.device)
            outputs[idle, 0] = kept[idle, 0]
            return outputs

        if block is None:
            return root  # type: ignore[return-value]
        if root is not None:
            return block.merge(root, place)
        return block if lead == 1 else block.map(lambda outputs: outputs[:, lead - 1 : lead - 1 + columns])

    def _next_block(self, forest: Forest, plans: Sequence[LayerPlan]) -> None:
        """Claims added since the last call, after those that are live."""
        added = self._forward(forest, self._scored, plans, "score")
        if added.hidden is not None:
            known = [] if self._block_states is None else [self._block_states]
            self._block_states = torch.cat([*known, added.hidden], dim=1)
        self._answers = self._answers.merge(added, _side_by_side)  # type: ignore[union-attr]
        self._scored = forest.columns

    def _block(self, forest: Forest, begin: int) -> np.ndarray:
        """Ids of the block [R, n] whose first column is `begin`; pending tokens come before column 1."""
        if begin:
            return np.maximum(forest.token[:, begin:], 0)
        block = np.zeros((forest.rows, self._lead + forest.columns - 1), np.int64)
        for row, count in enumerate(self._pending.tolist()):
            block[row, self._lead - count : self._lead] = self._unseen(row, count)
        block[:, self._lead :] = np.maximum(forest.token[:, 1:], 0)
        return block

    def _forward(self, forest: Forest, begin: int, plans: Sequence[LayerPlan], kind: str) -> Answers:
        """Runs the block of the columns from `begin` on (0: pending tokens as well); answers of its columns, [R, n, V]."""
        model, opening = self._model, self._opening
        block, offset = self._block(forest, begin), self._lead - 1 + begin if begin else 0
        rows, count = block.shape
        static = model.compiled is not None and not begin and not (opening.hidden or opening.layers or plans or forest.mix)
        fed, columns = (power_of_two(rows), min(bucket(count), self._scratch)) if static else (rows, self._width(count, offset))
        keys = self._span(max(1, int(self._stored.max())))
        positions = self._positions(forest, begin)
        self._slot_position[:, offset : offset + count] = positions
        stored = padded(self._stored, fed)
        if self._lead == 1 and not begin and not self._masks.windowed and (self._pending == 1).all():
            masks = self._masks.growing(forest.shape, stored, columns, keys)
        else:
            seen = padded(self._visible(forest, begin), fed)
            placed = padded(positions, fed), padded(self._slot_position, fed)
            masks = self._masks.general(seen, stored, placed, offset, columns, keys)
        ids, positions = padded(block, fed, columns), padded(self._within_context(positions), fed, columns)
        start = model.timed()
        if static:
            logits = model.compiled(ids, positions, masks, self._memory, self._scratch + keys)  # type: ignore[misc, arg-type]
            answers = Answers(logits[:rows, :count])
        else:
            mix = self._mixed(forest, begin)
            answers = self._read(ids, positions, masks, range(offset, offset + columns), keys, plans, mix)
            if columns > count:
                answers = answers.map(lambda outputs: outputs[:, :count])
        self._tell(kind, rows, columns, model.timed() - start, plans)
        return answers

    def _width(self, count: int, offset: int) -> int:
        """The columns of a block, not compiled, that holds `count` and is written at scratch slot `offset`."""
        if count == 1 or not self._few_widths:
            return count
        return max(count, min(rounded(count, BLOCK_STEP), self._scratch - offset))

    def _read(
        self, ids: np.ndarray, positions: np.ndarray, masks: Masks, slots: range, keys: int, plans: Sequence[LayerPlan],
        mix: Mix | None = None,
    ) -> Answers:  # fmt: skip
        """One forward, not compiled, that writes into scratch `slots` and attends to scratch and the first `keys` of the text."""
        rows, opening = len(ids), self._opening
        window = self._memory.window(range(rows), slots, range(self._scratch + keys))  # type: ignore[union-attr]
        lie = np.concatenate([self._slot_position, np.broadcast_to(np.arange(keys), (rows, keys))], axis=1)
        read = Block(ids, positions, masks, lie, mix or {})
        return self._model.forward(read, window, hidden=opening.hidden, layers=opening.layers, plans=plans)

    def _mixed(self, forest: Forest, begin: int) -> Mix:
        """The mixed claims of the block whose first column is `begin`, by their place in it."""
        if forest.mix and not self._model.capabilities.embeddings:
            raise no_embeddings()
        first = begin or 1 - self._lead
        return {column - first: mix for column, mix in forest.mix.items() if column >= max(begin, 1)}

    def _positions(self, forest: Forest, begin: int) -> np.ndarray:
        """Own positions of the block's columns, [R, n]."""
        frontier = (self._text.length + self._shift - 1)[:, None]
        if begin:
            return frontier + forest.shape.depth[:, begin:]
        if self._lead == 1:
            return frontier + forest.shape.depth
        pending = frontier + np.arange(1 - self._lead, 1)
        return np.concatenate([pending, frontier + forest.shape.depth[:, 1:]], axis=1)

    def _within_context(self, positions: np.ndarray) -> np.ndarray:
        """Padding and absent claims may point outside the model's positions; nothing reads their answers."""
        most = self._model.capabilities.max_length
        if positions.min() >= 0 and (most is None or positions.max() < most):
            return positions
        return np.clip(positions, 0, None if most is None else most - 1)

    def _visible(self, forest: Forest, begin: int) -> np.ndarray:
        """Which scratch slots each column of the block sees, [R, n, S] bool."""
        rows, lead, claims = forest.rows, self._lead, forest.columns - 1
        first, ahead = max(1, begin), 0 if begin else lead
        seen = np.zeros((rows, ahead + forest.columns - first, self._scratch), bool)
        pending = np.arange(lead)[None] >= lead - self._pending[:, None]
        seen[:, ahead:, :lead] = pending[:, None]
        seen[:, ahead:, lead : lead + claims] = forest.shape.visible[:, first:, 1:]
        if not begin:
            order = np.tril(np.ones((lead, lead), bool))
            seen[:, :lead, :lead] = (order & pending[:, None]) | np.eye(lead, dtype=bool)
        return seen

    def _unseen(self, row: int, count: int) -> np.ndarray:
        """The first `count` pending tokens of a row."""
        return self._tokens(row, int(self.seen[row]), count)

    def _tokens(self, row: int, begin: int, count: int) -> np.ndarray:
        """Tokens of the text from `begin` on as the model reads them: the last one of its own prompt may be another."""
        tokens = self._text.token[row, begin : begin + count].copy()
        if count and begin == self._text.prompt[row] - 1:
            tokens[0] = self._prompt_end[row]
        return tokens

    def _swallow(self) -> None:
        """Reads pending tokens but for the last like a prompt, row by row, when they do not fit into the scratch slots."""
        for row in range(len(self.seen)):
            count, start = int(self._pending[row]) - 1, int(self._stored[row])
            if count > 0:
                read = self._read_chunk(range(row, row + 1), self._unseen(row, count)[None], start, keep=1)
                if read.hidden is not None:
                    self._states[row] = torch.cat([self._states[row], read.hidden[0]])
                self.seen[row] += count
        self._pending = self._text.length - self.seen

    def commit(self, paths: Sequence[Sequence[int]]) -> None:
        self._sketched = None
        if self._scored == 0:
            return
        paths = self._own_paths(paths)
        rows, sources, last = [], [], []
        targets: list[int] = []
        pending, stored = self._pending.tolist(), self._stored.tolist()
        for row, path in enumerate(paths):
            kept = [column for column in path if column < self._scored]
            slots = [*range(self._lead - pending[row], self._lead), *(self._lead - 1 + column for column in kept)]
            rows += [row] * len(slots)
            sources += slots
            targets += range(self._scratch + stored[row], self._scratch + stored[row] + len(slots))
            self.seen[row] += len(slots)
            last.append(kept[-1] if kept else 0)
            if self._block_states is not None:
                self._states[row] = torch.cat([self._states[row], self._block_states[row, slots]])
        if rows:
            self._memory.move(rows, sources, targets)  # type: ignore[union-attr]
        self._last = (self._answers, last)  # type: ignore[assignment]
        self._drop_claims()

    def _drop_claims(self) -> None:
        self._scored, self._answers, self._block_states, self._columns = 0, None, None, None

    def _roots(self, added: int = 0) -> Answers:
        """Answers after the last token in memory, [R + added, 1], kept from the round that committed it; the added rows
        have no token in memory that was asked for yet."""
        answers, columns = self._last  # type: ignore[misc]
        index = torch.arange(len(columns)), torch.tensor(columns, dtype=torch.long)

        def gather(outputs: torch.Tensor) -> torch.Tensor:
            chosen = outputs[index]
            return torch.cat([chosen, chosen.new_zeros(added, *chosen.shape[1:])]).unsqueeze(1)

        return answers.map(gather)

    def states(self, row: int) -> torch.Tensor:
        stored, lead = self._states[row], self._lead
        if self._block_states is None:
            return stored
        return torch.cat([stored, self._block_states[row, lead - int(self._pending[row]) : lead]])

    def select(self, rows: Sequence[int]) -> None:
        rows, live, self._sketched = list(rows), self._scored > 0, None
        if self._last is not None and rows != list(range(len(self.seen))):
            self._last = self._roots().select(rows), [0] * len(rows)
        self._reserve(len(rows), 1)
        used = range(0 if live else self._scratch, self._scratch + int(self._stored.max(initial=0)))
        self._memory.select(rows, used)  # type: ignore[union-attr]
        self.seen, self._shift, self._prompt_end = self.seen[rows], self._shift[rows], self._prompt_end[rows]
        self._states = [self._states[row] for row in rows] if self._states else []
        if not live:
            self._slot_position = np.zeros((len(rows), self._scratch), np.int64)
            return
        self._pending, self._slot_position = self._pending[rows], self._slot_position[rows]
        self._columns = None if self._columns is None else self._columns[rows]
        self._answers = self._answers.select(rows)  # type: ignore[union-attr]
        self._block_states = None if self._block_states is None else self._block_states[rows]

    def cache_bytes(self) -> int:
        return 0 if self._memory is None else self._memory.bytes()


def _side_by_side(known: torch.Tensor, added: torch.Tensor) -> torch.Tensor:
    return torch.cat([known, added], dim=1)
