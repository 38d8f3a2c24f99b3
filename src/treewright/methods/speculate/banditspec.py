"""BanditSpec: each round is drafted by one of several recipes, and a bandit learns which of them pays.

Hou et al. 2025, "BanditSpec: Adaptive Speculative Decoding via Bandit Algorithms" (https://arxiv.org/abs/2505.15141). `arms` are
whole recipes, written "METHOD:OPTION=VALUE": drafters, lengths and trees of any kind, each with the models it needs. One arm
drafts for the whole batch in a round and its verifier decides; all arms hear of every round, so that a drafter that learns
from the text knows what others wrote.

`policy=ucb` (UCBSpec) plays each arm once and then the one with the largest mean plus confidence radius; `policy=exp3`
(EXP3Spec) draws an arm with a probability that falls with its estimated losses, for arms whose worth changes. The
reward of a round is the tokens a row gained, on average over the rows, which makes rounds few; `reward=speed` is tokens per
second, for arms that cost unlike much. What was learned is kept with the model from one run to the next.

Cost: what the chosen arm costs. Lossless if the arms are: the choice depends on what has become text, never on the drafts
at hand. Under `reward=speed` it depends on the clock, so a run's arms (and above temperature 0 its tokens) do not repeat.

Beside the paper: rewards are brought to [0, 1], (Y - 1) / L for tokens, and the radius is divided by L: the same choices. L,
the most drafts that a round can have accepted, is `longest`, or the most that a row had accepted so far: what an arm claims
says little about it (a tree of 31 claims may be 6 deep), and how deep its trees were drafted would let choices depend on
drafts. Where a round sets a new mark, earlier rewards and losses are brought to the new L, so that at every choice the
paper's formulas hold with one L for all rounds. The paper's radius is wide: with L = 10 a difference of one token a round
shows after about a thousand rounds. `exploration` multiplies it; 0 leaves the best mean so far, which is about what the
released code does (its bonus is the same for all arms). Speeds are divided by the largest yet in the same way; each arm's
first round of a run is then passed over, since it warms caches and would cost the arm for long.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from treewright.core.build import build_parts
from treewright.core.errors import CompositionError, require
from treewright.core.randomness import SEARCH
from treewright.core.recipe import Recipe, read_method
from treewright.core.roles import Outcome, Parts, Round
from treewright.parts.control.bandits import Pulls, exp3_law, ucb_arm
from treewright.parts.control.switch import Switch, check_seats

CARD = {
    "title": "BanditSpec: Adaptive Speculative Decoding via Bandit Algorithms",
    "year": 2025,
    "link": "https://arxiv.org/abs/2505.15141",
    "card": 186,
    "aliases": ["UCBSpec", "EXP3Spec"],
    "roles": ["propose", "verify", "observe"],
    "models": [],
    "needs": ["left_to_right", "tree"],
    "claims": ["lossless"],
    "arms": "arms",
}

BATCH = (-1, -1)
"""The key of randomness of choices that are made for all rows together; no row has it."""


@dataclass(frozen=True)
class Config:
    """
    arms: recipes to choose among, each "METHOD" or "METHOD:OPTION=VALUE:...", methods joined by '+'
    policy: ucb takes the largest mean plus confidence radius, exp3 draws
    reward: tokens a row gained in the round, or tokens of all rows per second
    longest: drafts accepted in a round that count as all there can be (L); 0 for the most that were accepted so far
    exploration: ucb: what multiplies the confidence radius
    delta: ucb: how often the radius may be wrong
    """

    arms: tuple[str, ...] = ("plain", "prompt_lookup", "token_recycling:nodes=31")
    policy: Literal["ucb", "exp3"] = "ucb"
    reward: Literal["tokens", "speed"] = "tokens"
    longest: int = 0
    exploration: float = 1.0
    delta: float = 0.1

    def __post_init__(self) -> None:
        require(bool(self.arms), "arms", "()", 'a list of recipes, such as ["prompt_lookup","token_recycling:nodes=31"]')
        require(self.longest >= 0, "longest", self.longest, "an integer >= 0")
        require(self.exploration >= 0, "exploration", self.exploration, "a number >= 0")
        require(0 < self.delta < 1, "delta", self.delta, "a number between 0 and 1")


class Bandit:
    """Chooses arms, and keeps what came of it."""

    def __init__(self, config: Config, names: tuple[str, ...]) -> None:
        self._config, self._names = config, names
        self._passed_over: set[int] = set()
        self._law = np.ones(len(names))

    def pulls(self, round: Round) -> Pulls:
        """What is known of these arms under this policy and reward, on this model."""
        config = self._config
        key = ("banditspec", self._names, config.policy, config.reward, config.longest)
        return round.memories.model(key, lambda: Pulls(len(self._names)))

    def choose(self, round: Round) -> int:
        pulls = self.pulls(round)
        if self._config.policy == "ucb":
            return ucb_arm(pulls, pulls.scale or 1.0, self._config.exploration, self._config.delta)
        self._law = exp3_law(pulls)
        return round.randomness.index(self._law, BATCH, pulls.rounds, SEARCH)

    def learn(self, arm: int, outcome: Outcome) -> None:
        pulls, emitted = self.pulls(outcome.round), [len(tokens) for tokens in outcome.emitted]
        if self._config.reward == "speed":
            if arm not in self._passed_over or outcome.seconds <= 0:
                self._passed_over.add(arm)
                return
            reward = sum(emitted) / outcome.seconds
            pulls.widen(reward)
        else:
            pulls.widen(self._config.longest or max(2, *emitted) - 1)
            reward = float(np.clip(np.mean(emitted) - 1, 0, pulls.scale))
        if self._config.policy == "exp3":
            pulls.add_loss(arm, reward, self._law)
        pulls.add(arm, reward)


def parts(config: Config) -> Parts:
    recipes = [Recipe.of(*read_method(written)) for written in config.arms]
    names = tuple(map(str, recipes))
    again = next((name for name in names if names.count(name) > 1), None)
    if again is not None:
        raise CompositionError(f"arm '{again}' stands twice; name it once")
    for recipe in recipes:
        check_seats(recipe)
    arms = {name: build_parts(recipe) for name, recipe in zip(names, recipes, strict=True)}
    return Switch(arms, Bandit(config, names)).parts()
