"""The roles of a round and what passes between them. Minimal to be right: each protocol has one or two methods.

    control -> pick -> propose -> score -> verify -> apply -> observe -> commit
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import numpy as np

from treewright.core.answers import Answers
from treewright.core.claims import Forest
from treewright.core.randomness import Randomness
from treewright.core.request import Request
from treewright.core.session import Session
from treewright.core.text import Text
from treewright.core.trace import Step

T = TypeVar("T")


class Memories:
    """What methods learn, kept under a name. Memory of the scope `model` outlives a run and is shared by its rows, so
    it may steer what is *proposed*, never what is emitted; memory of the scope `row` follows the row on a fork."""

    def __init__(self, lasting: dict[Hashable, Any]) -> None:
        self._lasting = lasting

    def model(self, key: Hashable, make: Callable[[], T]) -> T:
        if key not in self._lasting:
            self._lasting[key] = make()
        return self._lasting[key]


@dataclass(slots=True)
class Round:
    """What the roles of one round see.

    keys [R]: each row's key of randomness (request, particle slot). claims: the most columns `propose` may use, frontier
    included; the engine and the controller lower it. vocabulary: tokens the target knows. number: rounds so far.
    draft_law: the request's warpers, logits [R, V] to probabilities [R, V].
    """

    text: Text
    request: Request
    sessions: Mapping[str, Session]
    randomness: Randomness
    memories: Memories
    keys: list[tuple[int, int]]
    draft_law: Callable[[np.ndarray], np.ndarray]
    claims: int
    vocabulary: int
    number: int = 0
    forest: Forest = field(init=False)
    answers: dict[str, Answers] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.forest = Forest(self.text.frontier())

    @property
    def rows(self) -> int:
        return self.text.rows

    @property
    def depth_left(self) -> int:
        """Claims deeper than this cannot become text in any row: the bonus token takes the last place."""
        return int(self.text.remaining().max()) - 1

    def position(self, row: int, depth: int) -> int:
        """The absolute position of the token that a claim of this depth predicts."""
        return int(self.text.length[row]) + depth


@dataclass(slots=True)
class Verdict:
    """Which claims become fact.

    paths[r]: accepted columns in order. extra [R]: a token appended after them, -1 for none; extra_slot [R] in any-order
    families. log_weight[r]: one entry for each emitted token, None for all zero. finished [R]: end these rows now, with
    the reason "dead_end". rows: new row i continues old row rows[i] (fork, prune, resample), before anything is appended.
    """

    paths: list[list[int]]
    extra: list[int]
    extra_slot: list[int] | None = None
    log_weight: list[list[float]] | None = None
    finished: list[bool] | None = None
    rows: list[int] | None = None


@dataclass(slots=True)
class Outcome:
    """What observers learn from: the round with its answers, the verdict as truncated, the tokens each row gained."""

    round: Round
    verdict: Verdict
    emitted: list[list[int]]


class TargetLaw(Protocol):
    """The law a lossless method must reproduce, pulled at the claims a walk visits: the target's logits, then steering,
    constraint, penalties and warpers, each at the claim's own prefix."""

    greedy: bool

    def logits(self, row: int, column: int) -> np.ndarray:
        """Steered, constrained and penalised logits, [V]."""

    def probs(self, row: int, column: int) -> np.ndarray:
        """The law as probabilities [V], float64, sum 1. All zero where a constraint leaves nothing."""

    def draw(self, row: int, column: int) -> tuple[int, float]:
        """A token drawn from the law with the noise of its position, and its log weight; (-1, -inf) at a dead end."""


class Proposer(Protocol):
    """Adds claims to `round.forest`, at most `round.claims` columns in all; it may score other sessions meanwhile."""

    def propose(self, round: Round) -> None: ...


class Verifier(Protocol):
    """Decides which claims become text. Costs no model call."""

    def verify(self, round: Round, law: TargetLaw) -> Verdict: ...


class Observer(Protocol):
    """Learns from everything that was seen, rejected claims too. `prompt_top` > 0 asks for the ids that the target
    predicts at every prompt position; they come once for the rows that were admitted, through `read_prompts`."""

    prompt_top: int

    def read_prompts(self, round: Round, prompts: Sequence[Sequence[int]], top: np.ndarray) -> None: ...

    def observe(self, outcome: Outcome) -> None: ...


class Steering(Protocol):
    """Changes logits at one claim. `models` names the sessions whose answers it combines; `prompt` may rewrite the
    prompt that such a session reads."""

    models: tuple[str, ...]

    def prompt(self, model: str, prompt: Sequence[int]) -> Sequence[int]: ...

    def steer(self, logits: np.ndarray, others: Mapping[str, np.ndarray], prefix: np.ndarray) -> np.ndarray: ...


class Constraint(Protocol):
    """Which tokens may follow. `mask` gives [V] bool for the tokens after the prompt of a row."""

    def mask(self, row: Hashable, continuation: np.ndarray) -> np.ndarray: ...


class Controller(Protocol):
    """Says before each round how many claims it may hold."""

    def claims(self, round: Round) -> int: ...


@dataclass(slots=True)
class Parts:
    """The live roles that a method brings. `claims`: the most columns it can ask about in a round, frontier included.
    `answer_needed`: whether the verifier reads the target's answers (search over claims of other models may not)."""

    propose: Proposer | None = None
    verify: Verifier | None = None
    observe: tuple[Observer, ...] = ()
    steer: tuple[Steering, ...] = ()
    constrain: tuple[Constraint, ...] = ()
    control: Controller | None = None
    claims: int = 1
    hidden: bool = False

    def join(self, other: Parts) -> Parts:
        """Both sets of roles; single seats were checked to be free when the recipe was read."""
        return Parts(
            propose=self.propose or other.propose,
            verify=self.verify or other.verify,
            observe=self.observe + other.observe,
            steer=self.steer + other.steer,
            constrain=self.constrain + other.constrain,
            control=self.control or other.control,
            claims=max(self.claims, other.claims),
            hidden=self.hidden or other.hidden,
        )


StepSink = Callable[[int, Step], None]
