"""Which draft model, and how long a chain of it: the cost model of speculative sampling.

Yan et al. 2024, "Decoding Speculative Decoding" (https://arxiv.org/abs/2402.01528): what a draft brings is a matter of its
latency first. A chain of gamma drafts, each accepted with probability alpha where the ones before were, brings
1 + alpha + ... + alpha^gamma tokens and takes gamma calls of the draft and one verification of gamma + 1 claims, whose cost grows
with batch and gamma. So

    tokens a second = E[tokens](alpha, gamma) / (gamma * draft seconds + cost(gamma + 1)).

Costs are seconds of a round by its claims, frontier included, as `bench.predict.curves` reads them; between the measured sizes
they lie on lines. All figures are those of a row. Nothing here asks a model: `replay` counts from recorded texts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import inf

from treewright.bench.nodes import cost_at
from treewright.core.errors import InputError, require

Costs = Mapping[int, float]
Propose = Callable[[Sequence[int], int], Sequence[int]]
"""What a draft would write behind a text, so many tokens at most."""

PRECISION = 1e-9
"""Of an acceptance that is solved for."""


@dataclass(frozen=True, slots=True)
class Draft:
    """A draft model as it was measured. seconds: of one of its calls; alpha: the chance that the target accepts a draft token
    whose predecessors it accepted."""

    name: str
    seconds: float
    alpha: float

    def __post_init__(self) -> None:
        require(0 <= self.seconds < inf, f"seconds of draft '{self.name}'", self.seconds, "a number >= 0")
        require(0 <= self.alpha <= 1, f"alpha of draft '{self.name}'", self.alpha, "a number from 0 to 1")


@dataclass(frozen=True, slots=True)
class Choice:
    """A draft, its best chain length (0: plain decoding is faster), and what is promised of them: tokens a round, tokens a second
    of a row, and their ratio to plain decoding."""

    draft: Draft
    gamma: int
    tokens_per_round: float
    tokens_per_second: float
    ratio: float


def expected_tokens(alpha: float, gamma: int) -> float:
    """Tokens of a round with gamma drafts, the target's own included: 1 + alpha + ... + alpha^gamma."""
    require(0 <= alpha <= 1, "alpha", alpha, "a number from 0 to 1")
    require(gamma >= 0, "gamma", gamma, "an integer >= 0")
    return sum(alpha**accepted for accepted in range(gamma + 1))


def throughput(draft: Draft, gamma: int, costs: Costs) -> float:
    """Tokens a second of a row. Raises InputError where the curve does not reach gamma + 1 claims."""
    return expected_tokens(draft.alpha, gamma) / (gamma * draft.seconds + cost_at(costs, gamma + 1))


def best(drafts: Sequence[Draft], costs: Costs, gammas: Sequence[int]) -> Choice:
    """The draft and chain length of the most tokens a second; on a tie the shorter chain, then the draft named first.

    Raises InputError where there is nothing to choose from, or the curve is too short.
    """
    require(bool(drafts), "the list of drafts", list(drafts), "at least one")
    require(bool(gammas), "the list of gammas", list(gammas), "at least one")
    choices = [(gamma, draft) for gamma in sorted(gammas) for draft in drafts]
    gamma, draft = max(choices, key=lambda choice: throughput(choice[1], choice[0], costs))
    speed = throughput(draft, gamma, costs)
    return Choice(draft, gamma, expected_tokens(draft.alpha, gamma), speed, speed * cost_at(costs, 1))


def required_alpha(gain: float, seconds: float, costs: Costs, gammas: Sequence[int]) -> float:
    """The least acceptance with which a draft of this latency is `gain` times as fast as plain decoding, at its best gamma.

    By bisection, since more acceptance is never slower. Raises InputError where no acceptance is enough.
    """
    require(0 < gain < inf, "gain", gain, "a number > 0")

    def promised(alpha: float) -> float:
        return best([Draft("wanted", seconds, alpha)], costs, gammas).ratio

    if promised(1.0) < gain:
        raise InputError(
            f"a gain of {gain:g} is out of reach for a draft of {1000 * seconds:g} ms a call: if all its tokens were accepted it "
            f"would be {promised(1.0):.2f}; give a smaller gain, a faster draft or longer chains"
        )
    low, high = 0.0, 1.0
    if promised(low) >= gain:
        return low
    while high - low > PRECISION:
        middle = (low + high) / 2
        low, high = (low, middle) if promised(middle) >= gain else (middle, high)
    return high


def replay(prompt: Sequence[int], text: Sequence[int], propose: Propose, gamma: int) -> list[int]:
    """Tokens of each round that decodes the recorded `text` behind `prompt` with chains of gamma drafts; their sum is len(text).

    The target's part is in the record, so only the draft is asked: once a round, for one token less than the text still lacks at
    most. What it proposes is accepted as far as it matches, and one token of the record follows, as in greedy decoding.
    """
    require(gamma >= 0, "gamma", gamma, "an integer >= 0")
    rounds, done = list[int](), 0
    while done < len(text):
        asked = min(gamma, len(text) - done - 1)
        drafts = propose([*prompt, *text[:done]], asked)[:asked] if asked else []
        rounds.append(1 + matches(drafts, text[done:]))
        done += rounds[-1]
    return rounds


def matches(drafts: Sequence[int], text: Sequence[int]) -> int:
    """How many drafts in front are what the text has there."""
    return next((place for place, (one, other) in enumerate(zip(drafts, text, strict=False)) if one != other), len(drafts))
