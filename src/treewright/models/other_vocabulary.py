"""A draft model whose tokenizer is not the target's, behind the same protocol.

Its session keeps a text of its own in the model's ids, which spells what the engine's text spells: a token that both
vocabularies have stands for itself, any other is written by the model's own tokenizer when it is committed. So the own text only
ever grows, nothing has to be rolled back, and where claims are in the target's ids it depends on the row's tokens alone. What is
held behind is the beginning of a character that the model's vocabulary cannot spell before it is whole; such a row gives no
answer (-inf everywhere) and so drafts nothing.

A model is opened in one of two ways. "shared": claims and answers are in the target's ids, -inf outside of the tokens that both
have, so that whatever drafts from a model drafts from this one. "own": claims and answers are in the model's own ids, for a
method that writes text and has the target's tokenizer read it (`Round.translations`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch

from treewright.core.answers import Answers
from treewright.core.claims import ABSENT, Forest
from treewright.core.layers import LayerPlan
from treewright.core.session import Capabilities, Model, Opening, Recorder, Session
from treewright.core.text import Text
from treewright.models.translator import Translator

SAMPLE = 512
SPARE = 16
Ids = Literal["shared", "own"]


class OtherVocabulary:
    """The model `inner`, asked in the ids that `ids` says. `within` is what it can do itself; its positions count its own tokens,
    so it is `prompt` that has to fit into them."""

    def __init__(self, inner: Model, translator: Translator, ids: Ids) -> None:
        self._inner, self._translator, self._ids = inner, translator, ids
        self._growth = _growth(translator)
        self.within = has = inner.capabilities
        self.capabilities = Capabilities(
            tree=has.tree, vocabulary=len(translator.own_of) if ids == "shared" else has.vocabulary,
            slot_bytes=has.slot_bytes, translation=translator if ids == "own" else None,
        )  # fmt: skip

    def prompt(self, tokens: Sequence[int]) -> list[int]:
        """A prompt in the model's own ids; at least one."""
        return opening_ids(self._translator, tokens)[0]

    def open(self, text: Text, opening: Opening, record: Recorder) -> Session:
        length = math.ceil(opening.length * self._growth) + SPARE
        own = Text(length + 1)
        inner = self._inner.open(own, Opening(opening.claims, opening.rows, length + 1), record)
        kind = SharedSession if self._ids == "shared" else OwnSession
        return kind(inner, own, self._translator, length)


def opening_ids(translator: Translator, tokens: Sequence[int]) -> tuple[list[int], bytes]:
    """A prompt in own ids, begun as the own tokenizer begins a text, and the bytes that are held behind it."""
    own = translator.own_spelling
    ids, held = translator.transcribe(b"", tokens, together=True)
    if own.start and ids[: len(own.start)] != own.start:
        ids = [*own.start, *ids]
    return ids or [max(own.end, 0)], held


def _growth(translator: Translator) -> float:
    """How many own tokens to expect for one of the target's: the most of any where few are there, else twice the mean. A row
    that needs more than there is room for drafts no further."""
    several = np.linspace(0, len(translator.own_of) - 1, min(SAMPLE, len(translator.own_of))).astype(int)
    counts = [len(translator.transcribe(b"", [token])[0]) for token in several.tolist()]
    return max(1.0, float(max(counts) if len(several) == len(translator.own_of) else 2 * np.mean(counts)))


class OtherVocabularySession:
    """What both kinds of asking share: rows come, are told the new text, fork and go.

    seen [R]: tokens of the engine's text whose writing the own session has read.
    """

    def __init__(self, inner: Session, own: Text, translator: Translator, length: int) -> None:
        self._inner, self._own, self._translator, self._length = inner, own, translator, length
        self._text: Text | None = None
        self._told = np.zeros(0, np.int64)
        self._held: list[bytes] = []
        self._silent = np.zeros(0, bool)
        self.seen = np.zeros(0, np.int64)
        self.prompt_top: np.ndarray | None = None

    def _look(self) -> None:
        """Notes how far the text has been read."""
        self.seen = np.where(self._inner.seen == self._own.length, self._told, self._told - 1)

    def admit(self, text: Text, prompts: Sequence[Sequence[int]]) -> None:
        self._text = text
        opened = [opening_ids(self._translator, prompt) for prompt in prompts]
        # The own text begins with the prompt's last token; the session reads the whole of it, however long it is.
        self._own.admit([ids[-1:] for ids, _ in opened], [self._length] * len(prompts))
        self._inner.admit(self._own, [ids for ids, _ in opened])
        self._told = np.concatenate([self._told, text.length[-len(prompts) :]])
        self._held += [held for _, held in opened]
        self._silent = np.concatenate([self._silent, np.zeros(len(prompts), bool)])
        self._look()

    @property
    def _mute(self) -> np.ndarray:
        """Rows whose own text is behind, [R] bool."""
        return self._silent | np.array([bool(held) for held in self._held], bool)

    def sketch(self, forest: Forest, *plans: LayerPlan) -> Answers:
        raise ValueError("a model of another vocabulary has no layers to be asked for (Capabilities.layers is 0)")

    def sketch_text(self, first: np.ndarray, count: int, plan: LayerPlan) -> Answers:
        raise ValueError("a model of another vocabulary has no layers to be asked for (Capabilities.layers is 0)")

    def states(self, row: int) -> torch.Tensor:
        raise ValueError("a model of another vocabulary gives no hidden states (Capabilities.hidden is False)")

    def _news(self, row: int) -> list[int]:
        """Tokens of the engine's text that the own text does not have yet."""
        assert self._text is not None
        begin, self._told[row] = int(self._told[row]), self._text.length[row]
        return self._text.of(row)[begin:].tolist()

    def _append(self, row: int, ids: Sequence[int]) -> None:
        """Adds own ids where there is room; a row without room falls silent, which costs drafts and nothing else."""
        if self._silent[row] or int(self._own.remaining()[row]) < len(ids):
            self._silent[row] = True
            return
        self._own.append(row, ids)

    def select(self, rows: Sequence[int]) -> None:
        index = list(rows)
        self._own.select(index)
        self._inner.select(index)
        self._told, self._silent = self._told[index], self._silent[index]
        self._held = [self._held[row] for row in index]
        self._look()

    def cache_bytes(self) -> int:
        return self._inner.cache_bytes()


class SharedSession(OtherVocabularySession):
    """Claims and answers in the target's ids. A claim outside of the intersection, and what hangs below it, has no answer."""

    _scored: Answers | None = None
    _lost: np.ndarray | None = None
    _columns: np.ndarray | None = None

    def root(self) -> Answers:
        assert self._text is not None
        return self.score(Forest(self._text.frontier()))

    def score(self, forest: Forest, plans: Sequence[LayerPlan] = ()) -> Answers:
        if self._columns is not None:
            self._forget()
        known = 0 if self._scored is None else self._scored.logits.shape[1]
        if self._scored is not None and known >= forest.columns:
            return self._scored
        token, lost = self._translated(forest)
        own = Forest(np.zeros(forest.rows, np.int64))
        own.replace(forest.shape, token)
        fresh = self._in_target(self._inner.score(own).logits[:, known:], lost[:, known:])
        self._lost = lost
        self._scored = Answers(fresh if self._scored is None else torch.cat([self._scored.logits, fresh], dim=1))
        return self._scored

    def _translated(self, forest: Forest) -> tuple[np.ndarray, np.ndarray]:
        """The claims in own ids [R, N], absent where they have none or an ancestor has none; and where that is so, [R, N]."""
        token = np.where(forest.token == ABSENT, ABSENT, self._translator.own_of[np.maximum(forest.token, 0)])
        missing = token == ABSENT
        missing[:, 0] = self._mute
        lost = (missing[:, None, :] & forest.shape.visible).any(-1)
        token = np.where(lost, ABSENT, token)
        token[:, 0] = 0
        return token, lost

    def _in_target(self, own: torch.Tensor, lost: np.ndarray) -> torch.Tensor:
        table = self._translator
        logits = own.new_full((*own.shape[:2], len(table.own_of)), -torch.inf)
        logits[..., torch.from_numpy(table.shared_target)] = own[..., torch.from_numpy(table.shared_own)]
        logits[torch.from_numpy(lost)] = -torch.inf
        return logits

    def adopt(self, columns: np.ndarray) -> None:
        self._columns = columns
        self._inner.adopt(columns)

    def commit(self, paths: Sequence[Sequence[int]]) -> None:
        kept = [self._kept(row, path) for row, path in enumerate(paths)]
        for row in range(len(paths)):
            ids, self._held[row] = self._translator.transcribe(self._held[row], self._news(row))
            self._append(row, ids)
        self._inner.commit([[] if self._silent[row] else path for row, path in enumerate(kept)])
        self._look()
        self._forget()

    def _kept(self, row: int, path: Sequence[int]) -> list[int]:
        """The part of an accepted path that the own session was asked about."""
        if self._lost is None or self._lost[row, 0]:
            return []
        kept, scored = list[int](), self._lost.shape[1]
        for column in path:
            own = column if self._columns is None else int(self._columns[row, column])
            if own < 0 or own >= scored or self._lost[row, own]:
                break
            kept.append(column)
        return kept

    def _forget(self) -> None:
        self._scored, self._lost, self._columns = None, None, None

    def select(self, rows: Sequence[int]) -> None:
        super().select(rows)
        index = list(rows)
        self._scored = None if self._scored is None else self._scored.select(index)
        self._lost = None if self._lost is None else self._lost[index]
        self._columns = None if self._columns is None else self._columns[index]


class OwnSession(OtherVocabularySession):
    """Claims and answers in the model's own ids; the forest is the method's, not the round's. A commit keeps the claims that
    spell how the text went on, whatever the target's tokens for it were."""

    _forest: Forest | None = None

    def root(self) -> Answers:
        return self.score(Forest(np.zeros(len(self._told), np.int64)))

    def score(self, forest: Forest, plans: Sequence[LayerPlan] = ()) -> Answers:
        self._forest = forest
        logits = self._inner.score(forest).logits
        mute = self._mute
        if mute.any():
            logits = logits.clone()
            logits[torch.from_numpy(mute)] = -torch.inf
        return Answers(logits)

    def adopt(self, columns: np.ndarray) -> None:
        raise ValueError("claims in the model's own ids are never those of the round; there is nothing to adopt")

    def commit(self, paths: Sequence[Sequence[int]]) -> None:
        kept = [self._follow(row) for row in range(len(paths))]
        self._inner.commit([[] if self._silent[row] else path for row, path in enumerate(kept)])
        self._look()
        self._forest = None

    def _follow(self, row: int) -> list[int]:
        """Appends what is new; the claims that say the beginning of it."""
        news, table = self._news(row), self._translator
        if self._forest is None or self._mute[row]:
            ids, self._held[row] = table.transcribe(self._held[row], news)
            self._append(row, ids)
            return []
        spelled = news[: next((at for at, token in enumerate(news) if table.target.tokens[token] is None), len(news))]
        path, ids, text = self._walked(row, table.text_of(spelled))
        rest, self._held[row] = table.write(text)
        more, self._held[row] = table.transcribe(self._held[row], news[len(spelled) :])
        self._append(row, [*ids, *rest, *more])
        return path

    def _walked(self, row: int, text: bytes) -> tuple[list[int], list[int], bytes]:
        """The claims down which `text` goes, their ids, and what is left of it."""
        forest, path, ids, column = self._forest, list[int](), list[int](), 0
        assert forest is not None
        children = forest.shape.children(row)
        while True:
            fitting = []
            for child in children[column]:
                token = int(forest.token[row, child])
                spelled = self._translator.spell(token) if token >= 0 else None
                if spelled and text.startswith(spelled):
                    fitting.append((len(spelled), -child))
            if not fitting:
                return path, ids, text
            size, column = max(fitting)
            column = -column
            path.append(column)
            ids.append(int(forest.token[row, column]))
            text = text[size:]

    def select(self, rows: Sequence[int]) -> None:
        super().select(rows)
        if self._forest is not None:
            forest = Forest(self._forest.token[list(rows), 0])
            forest.replace(self._forest.shape.select(rows), self._forest.token[list(rows)])
            self._forest = forest
