"""The roles of a round and what passes between them. Minimal to be right: each protocol has one or two methods.

control -> propose -> score -> verify -> apply -> observe -> commit, and in the end select
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from treewright.core.answers import Answers
from treewright.core.claims import Forest
from treewright.core.exits import Others
from treewright.core.layers import LayerPlan
from treewright.core.memories import Memories
from treewright.core.randomness import Randomness
from treewright.core.request import Request
from treewright.core.selection import Scorer, Selector
from treewright.core.session import Capabilities, Session
from treewright.core.text import Text
from treewright.core.translation import Translation


@dataclass(slots=True)
class Round:
    """What the roles of one round see.

    keys [R]: each row's key of randomness (prompt, sample); it stays with the slot on a fork. claims: the most columns
    `propose` may use, frontier included; the engine and the controller lower it. vocabulary: tokens the target knows.
    number: rounds so far. draft_law: the request's warpers, logits [R, V] to probabilities [R, V]. log_weight [R]: what
    the rows' verdicts have given them so far. bonus: whether the verifier adds a token after the accepted path.

    would_end(row, tokens): whether these tokens, appended, would end the row at an end id or a stop string. ask(): scores
    the claims that were added since, one forward of each model that makes the law, which then speaks of them too; False
    where the budget is spent, and nothing more should be asked. ask_law: how `frontier_law` gets its answer. control:
    what says when a chain of drafts is long enough. scorers: what judges texts, by role. spell(row, tokens): the text of tokens
    that would follow the row's own new ones. layers: how many each model has, by name; 0 where forwards cannot run a part.
    written(row): what these new tokens spell, and spell_prompt(row) the prompt's own text. turns: whose answers stand in the
    target's place, row by row; empty where nobody drives. translations: of the sessions that are asked in ids of their own, by
    name. proposed_by: who was let add claims, the innermost where one lets another; an observer that also drafts knows its own
    rounds by it.
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
    log_weight: Sequence[float] = ()
    bonus: bool = True
    would_end: Callable[[int, Sequence[int]], bool] = lambda row, tokens: False
    ask: Callable[[], bool] = lambda: False
    ask_law: Callable[[], TargetLaw] | None = None
    control: Controller | None = None
    scorers: Mapping[str, Scorer] = field(default_factory=dict)
    layers: Mapping[str, int] = field(default_factory=dict)
    spell: Callable[[int, Sequence[int]], str] = lambda row, tokens: ""
    written: Callable[[int], str] = lambda row: ""
    spell_prompt: Callable[[int], str] = lambda row: ""
    turns: Sequence[Turn] = ()
    translations: Mapping[str, Translation] = field(default_factory=dict)
    forest: Forest = field(init=False)
    answers: dict[str, Answers] = field(default_factory=dict)
    proposed_by: Proposer | None = None

    def __post_init__(self) -> None:
        self.forest = Forest(self.text.frontier())

    @property
    def rows(self) -> int:
        return self.text.rows

    @property
    def deepest(self) -> np.ndarray:
        """Claims deeper than this cannot become text, [R]: the bonus token takes the last place, where there is one."""
        return self.text.remaining() - self.bonus

    @property
    def depth_left(self) -> int:
        """Claims deeper than this cannot become text in any row."""
        return int(self.deepest.max())

    def let_propose(self, proposer: Proposer) -> None:
        """Has this proposer add claims, and notes that the round is its own. What chooses among proposers calls it, too."""
        self.proposed_by = proposer
        proposer.propose(self)

    def frontier_law(self) -> TargetLaw:
        """The target law at the frontier (column 0), before anything is proposed. The target and the models that steering
        combines are asked for their roots, which costs a call of each where tokens are pending."""
        if self.ask_law is None:
            raise ValueError("this round was made by hand: give it ask_law")
        return self.ask_law()

    def more(self, answers: Answers, parent: int, column: int) -> np.ndarray:
        """Which rows should draft on after the claim `column`, which was drawn from a draft model's `answers` at `parent`; [R]
        bool. The claim itself stays: dropping it because of what it is would bias the law."""
        if self.control is None:
            return np.ones(self.rows, bool)
        return self.control.more(self, answers, parent, column)

    def position(self, row: int, depth: int) -> int:
        """The absolute position of the token that a claim of this depth predicts."""
        return int(self.text.length[row]) + depth


@dataclass(frozen=True, slots=True)
class Completion:
    """A hypothesis that ends while its row may go on with another: old row `row`, then its claims `path`, then `token`
    (-1 for none). It becomes a candidate of its own, with the row's log weight plus `log_weight`; its reason is "length" or
    "budget" where it took the last token there was room for and did not stop, else "stop"."""

    row: int
    path: list[int]
    token: int
    log_weight: float = 0.0


@dataclass(slots=True)
class Verdict:
    """Which claims become fact. A verdict may decide nothing (no path, no extra token); then the round only cost its calls.

    paths[r]: accepted columns in order. extra [R]: a token appended after them, -1 for none. log_weight[r]: one entry for
    each token offered, in order; entries of tokens that a stop cuts off do not count, and an entry where no token is
    offered does (a dead end weighs -inf). None: all zero. finished [R]: end these rows now, with the reason "dead_end".
    written[r]: (column, token) pairs that follow the extra token, each predicted at its column and claimed by nobody. They
    are text that no session has read; the next round reads them with its claims.

    Any-order families only: fills[r] are (slot, token) pairs written after the path's claims, revoked[r] slots that are
    opened again, and slots before final[r] are settled for good (None: all up to the first open one).

    rows [R]: new row i continues old row rows[i] (fork, prune, resample). All other lists then speak of new rows:
    paths[i] are claims of the old row rows[i], and the new row's weight is the old row's plus log_weight[i]. Slots keep
    their keys of randomness. `completed` speaks of the old rows; its candidates are numbered in that order. dropped [R]: these
    rows end and leave nothing behind (a hypothesis that a search gave up).
    """

    paths: list[list[int]]
    extra: list[int]
    fills: list[list[tuple[int, int]]] | None = None
    revoked: list[list[int]] | None = None
    final: list[int] | None = None
    log_weight: list[list[float]] | None = None
    finished: list[bool] | None = None
    written: list[list[tuple[int, int]]] | None = None
    rows: list[int] | None = None
    completed: list[Completion] = field(default_factory=list)
    dropped: list[bool] | None = None


@dataclass(slots=True)
class Outcome:
    """What observers learn from: the round with its answers, the verdict as truncated at stops and limits, the tokens each
    row gained. Where the verdict forked rows, everything here speaks of the new rows. seconds: what the round took up to here,
    its model calls included, 0 where drafts decide the text, which must not depend on the clock; columns: what the target
    computed in it, padding included, for each row."""

    round: Round
    verdict: Verdict
    emitted: list[list[int]]
    seconds: float = 0.0
    columns: int = 0


class TargetLaw(Protocol):
    """The law a lossless method must reproduce, pulled at the claims a walk visits: the target's logits, then constraint,
    steering, penalties and warpers, each at the claim's own prefix."""

    greedy: bool

    def logits(self, row: int, column: int) -> np.ndarray:
        """Steered, constrained and penalised logits, [V]. Raises CompositionError under a constraint whose mask is not known:
        a black box, or any where a `Sampler` draws."""

    def probs(self, row: int, column: int) -> np.ndarray:
        """The law as probabilities [V], float64, sum 1. All zero where a constraint leaves nothing. Raises as `logits`."""

    def draw(self, row: int, column: int) -> tuple[int, float]:
        """A token drawn from the law with the noise of its position, and its log weight; (-1, -inf) at a dead end. The weight
        is 0 unless a `Sampler` draws or `Parts.weighted` asks for it."""


class Proposer(Protocol):
    """Adds claims to `round.forest`, at most `round.claims` columns in all; it may score other sessions meanwhile. One that asks
    the controller after each draft of a chain (`Round.more`) has an attribute `asks` that is True."""

    def propose(self, round: Round) -> None: ...


class Verifier(Protocol):
    """Decides which claims become text. Costs no model call, unless it adds claims itself and asks again (`Round.ask`)."""

    def verify(self, round: Round, law: TargetLaw) -> Verdict: ...


class Observer(Protocol):
    """Learns from everything that was seen, rejected claims too. `prompt_top` > 0 asks for the ids that the target
    predicts at every prompt position; they come once for the rows that were admitted, through `read_prompts`."""

    prompt_top: int

    def read_prompts(self, round: Round, prompts: Sequence[Sequence[int]], top: np.ndarray) -> None: ...

    def observe(self, outcome: Outcome) -> None: ...


class Steering(Protocol):
    """Changes logits at one claim. `models` names the sessions whose answers it combines; `prompt` may rewrite the
    prompt that such a session reads. `steer` sees the claim's whole prefix, prompt included, and the row's key; logits are
    -inf where a constraint forbids a token (never everywhere), and are not to be written to. `others` holds the models' own
    answers, and the target's exit layers where the method's parts have `layers`."""

    models: tuple[str, ...]

    def prompt(self, model: str, prompt: Sequence[int]) -> Sequence[int]: ...

    def steer(self, logits: np.ndarray, others: Others, prefix: np.ndarray, row: tuple[int, int]) -> np.ndarray: ...


class Constraint(Protocol):
    """Which tokens may follow the continuation of a row, prompt left out. Both ways of asking give the same answer."""

    def mask(self, row: Hashable, continuation: np.ndarray) -> np.ndarray:
        """[V] bool. Raises CompositionError where the constraint is a black box that has no mask."""

    def allowed(self, row: Hashable, continuation: np.ndarray, token: int) -> bool:
        """The mask's entry of one token, without computing the others."""


class Sampler(Protocol):
    """Draws the token of a claim where constraints are asked about one token at a time, never for a mask. `weighs`: its
    weights are unbiased, else they are all 1."""

    weighs: bool

    def draw(self, law: np.ndarray, allowed: Callable[[int], bool], index: Callable[[np.ndarray, int], int]) -> tuple[int, float]:
        """A token of the law [V] under the constraint, and the logarithm of an unbiased estimate of the mass that is allowed;
        (-1, -inf) where nothing is. index(weights, trial): chance, a fresh one for each trial."""

    def largest(self, logits: np.ndarray, allowed: Callable[[int], bool]) -> int:
        """The allowed token with the largest logit, -1 if there is none; what temperature 0 takes."""


class Controller(Protocol):
    """Says before each round how many claims it may hold, and after each draft of a chain whether to go on."""

    def claims(self, round: Round) -> int: ...

    def more(self, round: Round, answers: Answers, parent: int, column: int) -> np.ndarray:
        """Which rows draft on after `column`, [R] bool; see `Round.more`."""


@dataclass(frozen=True, slots=True)
class Turn:
    """Who answers for a row in a round. model: the name of a session; None where the round is decided without a new answer.
    plan: the part of its layers that runs, None for the whole."""

    model: str | None = "target"
    plan: LayerPlan | None = None


class Driver(Protocol):
    """Says for each row, once claims are proposed, whose answers stand in the target's place; by it a text is not the target's
    any more."""

    def turns(self, round: Round) -> Sequence[Turn]: ...


@dataclass(slots=True)
class Parts:
    """The live roles that a method brings. `claims`: the most columns it can ask about in a round, frontier included; `drafts`:
    the most that it asks other models about, where those are more; `reads`: the most tokens of a row's text that the target
    sketches at once, which no limit of the machine lowers. `accept`: a verifier that takes the drafter's own one's place.
    `hidden`: the sessions must keep last hidden states readable; `layers`: the target's must keep its exit layers. `reuse`: the
    target must be able to compute a window of a canvas. `bonus`: the verifier adds a token of its own after the accepted path,
    as speculation does; a search that chooses among claims does not, and its claims are never cut to what pays on the machine.
    `candidates`: the most continuations of a prompt that a user may ask for; they come in the selector's order. `slots`: rows
    that a prompt is decoded in, where they are not as many as its candidates (0: they are). `together`: those rows enter at once
    and see each other, as beams and particles do. `logprobs`: the rows keep their tokens' log-probabilities. `texts`: the
    selector reads what the candidates spell, so the target needs a tokenizer. `claims_per_token`: further columns for each new
    token a row may have, for searches that keep all they asked alive within a round; no limit of the machine lowers them.
    `probabilities`: the verifier asks for whole laws and not only for draws. `weighted`: draws carry the mass that constraints
    leave of the free law, and are drawn from what they leave of it *after* top-k and the other warpers. `fits`: asked about
    the target before the first forward; they raise CapabilityError where trained weights are for another model. `writers`: the
    models that a driver lets write text beside the target; rows are no longer than these have positions. `form`: what
    the model itself asks of every text, a part of its law and never a weight. `whole_laws`: the verifier reads whole laws at
    temperature 0 as well. `one_law`: a claim's answers are shared by several texts, or read behind placeholders, so
    what would change them by a text (steering, constraints, penalties) is refused. `greedy`: True for what works only at
    temperature 0, False for what works only above. `row_drafts`: a row's drafts are a function of its own text, noise and
    models, and of nothing that other rows or earlier runs taught; see `apart`. `asked`: the
    controller is of no use unless the proposer `asks` it.
    """

    propose: Proposer | None = None
    verify: Verifier | None = None
    observe: tuple[Observer, ...] = ()
    steer: tuple[Steering, ...] = ()
    constrain: tuple[Constraint, ...] = ()
    form: tuple[Constraint, ...] = ()
    control: Controller | None = None
    draw: Sampler | None = None
    select: Selector | None = None
    accept: Verifier | None = None
    drive: Driver | None = None
    claims: int = 1
    drafts: int = 1
    reads: int = 0
    claims_per_token: int = 0
    candidates: int = 1
    slots: int = 0
    hidden: bool = False
    bonus: bool = True
    together: bool = False
    logprobs: bool = False
    texts: bool = False
    layers: bool = False
    probabilities: bool = False
    weighted: bool = False
    whole_laws: bool = False
    one_law: bool = False
    greedy: bool | None = None
    reuse: bool = False
    row_drafts: bool = False
    asked: bool = False
    writers: tuple[str, ...] = ()
    fits: tuple[Callable[[Capabilities], None], ...] = ()

    @property
    def asks(self) -> bool:
        """Whether the proposer says that it asks the controller after each draft of a chain."""
        return bool(getattr(self.propose, "asks", False))

    @property
    def drafts_decide(self) -> bool:
        """Whether a text depends on what was drafted for it: under a rule of acceptance, or where a driver answers for rows."""
        return self.propose is not None and (self.accept is not None or self.drive is not None)

    @property
    def apart(self) -> bool:
        """Whether rows are decoded one after another, each with fresh memory: where drafts decide what is written, and are not
        known to be the row's own."""
        return self.drafts_decide and not self.row_drafts

    def join(self, other: Parts) -> Parts:
        """Both sets of roles; single seats were checked to be free when the recipe was read."""
        drafting = [parts for parts in (self, other) if parts.propose is not None or parts.control is not None]
        return Parts(
            propose=self.propose or other.propose,
            verify=self.verify or other.verify,
            observe=self.observe + other.observe,
            steer=self.steer + other.steer,
            constrain=self.constrain + other.constrain,
            form=self.form + other.form,
            control=self.control or other.control,
            draw=self.draw or other.draw,
            accept=self.accept or other.accept,
            drive=self.drive or other.drive,
            drafts=max(self.drafts, other.drafts),
            reads=max(self.reads, other.reads),
            select=self.select or other.select,
            claims=max(self.claims, other.claims),
            claims_per_token=max(self.claims_per_token, other.claims_per_token),
            candidates=max(self.candidates, other.candidates),
            slots=max(self.slots, other.slots),
            hidden=self.hidden or other.hidden,
            bonus=self.bonus and other.bonus,
            together=self.together or other.together,
            logprobs=self.logprobs or other.logprobs,
            texts=self.texts or other.texts,
            layers=self.layers or other.layers,
            probabilities=self.probabilities or other.probabilities,
            weighted=self.weighted or other.weighted,
            whole_laws=self.whole_laws or other.whole_laws,
            one_law=self.one_law or other.one_law,
            greedy=other.greedy if self.greedy is None else self.greedy,
            reuse=self.reuse or other.reuse,
            asked=self.asked or other.asked,
            row_drafts=all(parts.row_drafts for parts in drafting),
            writers=self.writers + other.writers,
            fits=self.fits + other.fits,
        )
