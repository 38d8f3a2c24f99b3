"""The model protocol: what a model can be asked, whatever family it is of.

A `Model` opens a `Session` for a run. The session remembers how much of each row's text it has seen and keeps the memory
(key-value cache, recurrent state ...) that goes with it. The text itself belongs to the engine: tokens that the session
has not seen yet are *pending* and are swallowed by the next forward, wherever they came from.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from treewright.core.answers import Answers
from treewright.core.claims import Forest
from treewright.core.text import Text

Recorder = Callable[[str, int, int, float], None]
"""Told of every forward: kind ("prefill" or "score"), rows, columns, seconds."""


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a model can be asked for; compared with a card's `needs` before the first forward.

    order: "left_to_right" or "any". tree: "native" (one forward scores a tree), "unrolled" (each path is a row of its
    own, right and slow) or "none". hidden_size: width of the last hidden states, where there are any. max_length: positions
    the model has, None without a limit. mask: the token of an open slot, for models of any order.
    """

    order: str = "left_to_right"
    tree: str = "native"
    hidden: bool = False
    exit_layers: bool = False
    attention_heads: bool = False
    embeddings: bool = False
    gradients: bool = False
    vocabulary: int = 0
    hidden_size: int = 0
    max_length: int | None = None
    mask: int | None = None

    def missing(self, needs: Sequence[str]) -> list[str]:
        """The entries of `needs` that this model lacks. `tree` is met by native and by unrolled trees."""
        return [need for need in needs if not self._has(need)]

    def _has(self, need: str) -> bool:
        if need == "tree":
            return self.tree != "none"
        if need in ("left_to_right", "any_order"):
            return self.order == need.removesuffix("_order")
        return bool(getattr(self, need, False))


@dataclass(frozen=True, slots=True)
class Opening:
    """How a session is opened. `claims`: the most columns a round may hold, frontier included. `rows` and `length`: the
    most rows and tokens of a row the run may need. `hidden`: keep last hidden states readable. `prompt_top`: bring back
    the top ids predicted at every prompt position (0: do not compute them)."""

    claims: int
    rows: int
    length: int
    hidden: bool = False
    prompt_top: int = 0


class Session(Protocol):
    """One model's memory of the rows of a run.

    seen [R]: tokens of the engine's text (in the text's own coordinates) that are in memory.
    prompt_top: after `admit`, ids [R, T, K] (-1 where unknown) when the opening asked for them.
    """

    seen: np.ndarray
    prompt_top: np.ndarray | None

    def admit(self, text: Text, prompts: Sequence[Sequence[int]]) -> None:
        """Adds rows for the last len(prompts) rows of `text` and reads their prompts but for the last token.

        `prompts` are this session's own (a steering part may have rewritten them); what the text gains later is shared.
        """

    def root(self) -> Answers:
        """Logits at the frontier, [R, 1, V], before anything is proposed; at most one forward, none if nothing is pending."""

    def score(self, forest: Forest) -> Answers:
        """Answers for every column of the forest; one forward over the columns that were not scored before, and over
        pending tokens, none where there are neither. A claim that was scored is not computed again until the commit."""

    def states(self, row: int) -> torch.Tensor:
        """Last hidden states of the own prompt and the text, [T, H]; readable where the opening asked for hidden states. After
        `root` or `score` up to the frontier and with it, before that as far as the session has read, which is all but what is
        pending. On the model's device; costs no call."""

    def commit(self, paths: Sequence[Sequence[int]]) -> None:
        """Keeps the pending tokens and, for each row, the claims of the accepted path (columns, frontier left out) that
        were scored; drops all other claims. Called after the engine appended to the text."""

    def select(self, rows: Sequence[int]) -> None:
        """Row i becomes a copy of row rows[i], together with the text's own `select`. Comes between rounds, or between a
        score and its commit when a verdict forks rows: then the live claims and their answers move along."""

    def cache_bytes(self) -> int:
        """Bytes of memory the session holds."""


class Model(Protocol):
    """A loaded model."""

    capabilities: Capabilities

    def open(self, text: Text, opening: Opening, record: Recorder) -> Session:
        """A session without rows."""
