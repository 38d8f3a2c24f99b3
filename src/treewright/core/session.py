"""The model protocol: what a model can be asked, whatever family it is of.

A `Model` opens a `Session` for a run. The session remembers how much of each row's text it has seen and keeps the memory
(key-value cache, recurrent state ...) that goes with it. The text itself belongs to the engine: tokens that the session
has not seen yet are *pending* and are swallowed by the next forward, wherever they came from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from treewright.core.answers import Answers
from treewright.core.claims import Forest
from treewright.core.errors import ContextError
from treewright.core.layers import LayerPlan
from treewright.core.text import Text
from treewright.core.translation import Translation


class Recorder(Protocol):
    """Told of every forward: kind ("encode", "prefill", "score", "sketch"), rows, columns, seconds, and the share of the layers'
    parts that ran. "score" is what budgets and traces count as a call of the model: a forward that text is decided by, or that
    runs every part of the layers, whoever asked for it. "sketch" is a drafter's forward through less than that."""

    def __call__(self, kind: str, rows: int, columns: int, seconds: float, share: float = 1.0) -> None: ...


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a model can be asked for; compared with a card's `needs` before the first forward.

    order: "left_to_right" or "any". tree: "native" (one forward scores a tree), "unrolled" (each path is a row of its
    own, right and slow) or "none". layers: how many layers there are where forwards may run a part of them (`LayerPlan`), else
    0. hidden_size: width of the last hidden states, where there are any. max_length: positions
    the model has, None without a limit. mask: the token of an open slot, for models of any order.

    decoder_start: the tokens that the model's own text begins with in place of the prompt, where it reads the prompt apart
    from it (encoder-decoders: `max_length` then counts the decoder's positions); None where the text continues the prompt.
    max_prompt: tokens that may be read apart, None without a limit.

    slot_bytes: what the memory holds for one token or claim of a row, 0 where that is not known. translation: how ids are read,
    of a model that is asked in ids of its own; None where they are the target's.
    """

    order: str = "left_to_right"
    tree: str = "native"
    hidden: bool = False
    exit_layers: bool = False
    layers: int = 0
    attention_heads: bool = False
    embeddings: bool = False
    gradients: bool = False
    vocabulary: int = 0
    hidden_size: int = 0
    max_length: int | None = None
    mask: int | None = None
    decoder_start: tuple[int, ...] | None = None
    max_prompt: int | None = None
    slot_bytes: int = 0
    translation: Translation | None = None

    def own_text(self, prompt: Sequence[int]) -> Sequence[int]:
        """What the model's own text begins with: the prompt, or the decoder's start."""
        return prompt if self.decoder_start is None else self.decoder_start

    def missing(self, needs: Sequence[str]) -> list[str]:
        """The entries of `needs` that this model lacks. `tree` is met by native and by unrolled trees."""
        return [need for need in needs if not self._has(need)]

    def _has(self, need: str) -> bool:
        if need == "tree":
            return self.tree != "none"
        if need in ("left_to_right", "any_order"):
            return self.order == need.removesuffix("_order")
        return bool(getattr(self, need, False))


def check_room(has: Capabilities, prompt: int, whose: str, model: str) -> None:
    """Raises ContextError where a prompt of so many tokens does not fit `model`, or leaves no position for a new token."""
    if has.max_prompt is not None and prompt > has.max_prompt:
        raise ContextError(f"{whose} has {prompt} tokens; the encoder of {model} reads {has.max_prompt} at most; shorten it")
    if has.max_length is None:
        return
    if has.decoder_start is None and prompt >= has.max_length:
        raise ContextError(
            f"{whose} has {prompt} tokens as {model} reads it, which has {has.max_length} positions; "
            f"shorten it to at most {has.max_length - 1}"
        )
    if has.decoder_start is not None and len(has.decoder_start) >= has.max_length:
        raise ContextError(
            f"the decoder of {model} has {has.max_length} positions, which leaves none for a new token behind its "
            f"{len(has.decoder_start)} start tokens; give a model whose decoder has more"
        )


@dataclass(frozen=True, slots=True)
class Opening:
    """How a session is opened. `claims`: the most columns a round may hold, frontier included. `rows` and `length`: the
    most rows and tokens of a row the run may need. `hidden`: keep last hidden states readable. `prompt_top`: bring back
    the top ids predicted at every prompt position (0: do not compute them). `layers`: keep the exit layers of claims
    readable. `reuse`: keep keys and values of whole forwards, for rounds with a window."""

    claims: int
    rows: int
    length: int
    hidden: bool = False
    prompt_top: int = 0
    layers: bool = False
    reuse: bool = False


class Session(Protocol):
    """One model's memory of the rows of a run.

    seen [R]: tokens of the engine's text (in the text's own coordinates) that are in memory.
    prompt_top: after `admit`, ids [R, T, K] (-1 where unknown) when the opening asked for them; None in models that
    predict nothing at a prompt's positions.
    """

    seen: np.ndarray
    prompt_top: np.ndarray | None

    def admit(self, text: Text, prompts: Sequence[Sequence[int]]) -> None:
        """Adds rows for the last len(prompts) rows of `text` and reads their prompts but for the last token.

        `prompts` are this session's own (a steering part may have rewritten them); what the text gains later is shared.
        """

    def root(self) -> Answers:
        """Logits at the frontier, [R, 1, V], before anything is proposed; at most one forward, none if nothing is pending."""

    def score(self, forest: Forest, plans: Sequence[LayerPlan] = ()) -> Answers:
        """Answers for every column of the forest; one forward over the columns that were not scored before, and over
        pending tokens, none where there are neither. A claim that was scored is not computed again until the commit.
        plans: the part of the layers that runs for the new columns, one for all rows or one for each; none for the whole model,
        which is all there is where `Capabilities.layers` is 0. Recorded as a "score" whatever the plans."""

    def sketch(self, forest: Forest, *plans: LayerPlan) -> Answers:
        """Answers of the same claims from a part of the model: columns that were scored keep their answers, the others get
        those of the plan (one for all rows, or one for each). Leaves nothing behind: a later `score` computes these columns in
        full, a commit keeps none of them. One forward over the columns that were not sketched under these plans before; where
        the rows' plans together need every part of the layers it is a full one, recorded as a "score", and so counts as a call.
        Only where `Capabilities.layers` is not 0."""

    def sketch_text(self, first: np.ndarray, count: int, plan: LayerPlan) -> Answers:
        """What a part of the model says along text that is there already: answers [R, count, V] after each of the tokens
        first[r], first[r] + 1 ... of a row, in the text's coordinates and from the last of the prompt on, read on the whole
        model's memory of what comes before them. Places beyond a row's text mean nothing. Leaves nothing behind; comes before
        anything is scored or sketched in the round, and `count` is at most the opening's claims. One forward, recorded as that of
        a `sketch` is. Only where `Capabilities.layers` is not 0."""

    def adopt(self, columns: np.ndarray) -> None:
        """Says that what was scored is no part of the round's forest but of one of the drafter's own: column c of the round's
        is what was scored as columns[r, c] (columns [R, N], 0 at the frontier, -1 where it was not asked). Holds for the next
        commit. A later `score` in the round starts afresh."""

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
