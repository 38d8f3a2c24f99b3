"""Draft & Verify: the model drafts with some of its attention and feed-forward parts left out, as long as it is sure enough.

Zhang et al. 2024, "Draft & Verify: Lossless Large Language Model Acceleration via Self-Speculative Decoding"
(https://arxiv.org/abs/2309.08168). Sub-layers that are left out pass their input on. A row drafts until a token's probability
lies below its threshold (the token is kept) or `tokens` are there; the whole model checks them by speculative sampling. The
threshold follows the share m of drafts that are accepted: m = 0.5 m + 0.5 accepted / drafted; where m is below 0.9 the
threshold aims 0.01 higher, else 0.01 lower unless the draft was as long as it may be; a tenth of the way is gone each round.

Which parts to leave out is found once for a model: `treewright.train.skip_sets.find_skip_sets` tries sets on prompts. Until
then every second layer is left out, the first and the last never.

Cost: one target call and up to `tokens` forwards of the parts that stay, a round. Lossless.

Beside the paper: drafts are argmaxes judged as such at temperature 0, and draws of the drafter's own law above it. The
released code by default drafts argmaxes and judges them by the ratio of two softmaxes, which is biased. Every row of a batch
has a threshold of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from treewright.core.answers import Answers
from treewright.core.claims import ABSENT
from treewright.core.errors import CapabilityError, require
from treewright.core.layers import LayerPlan
from treewright.core.roles import Outcome, Parts, Round
from treewright.core.session import Capabilities
from treewright.parts.control.layer_search import start_plan
from treewright.parts.propose.draft_model import DraftChain
from treewright.parts.propose.self_draft import ask_layers, check_layers, drafted_probability
from treewright.parts.verify.rejection import Rejection

CARD = {
    "title": "Draft & Verify: Lossless Large Language Model Acceleration via Self-Speculative Decoding",
    "year": 2024,
    "link": "https://arxiv.org/abs/2309.08168",
    "card": None,
    "aliases": ["draft & verify", "self-speculation by skipped layers"],
    "roles": ["propose", "verify", "control", "observe"],
    "models": [],
    "needs": ["left_to_right", "tree", "layers"],
    "claims": ["lossless"],
    "tables": {"tokens": 2},
}
MEMORY, AIM, STEP, INERTIA = 0.5, 0.9, 0.01, 0.9


@dataclass(frozen=True)
class Config:
    """
    skip_attention: layers (from 0) whose attention drafts leave out; by default every second one but for the last
    skip_mlp: layers whose feed-forward part drafts leave out; by default the same
    tokens: drafts a round at most
    threshold: probability below which a token ends the draft, to start with
    adapt: let the threshold follow what is accepted
    """

    skip_attention: tuple[int, ...] | None = None
    skip_mlp: tuple[int, ...] | None = None
    tokens: int = 8
    threshold: float = 0.5
    adapt: bool = True

    def __post_init__(self) -> None:
        for name, layers in (("skip_attention", self.skip_attention), ("skip_mlp", self.skip_mlp)):
            require(min(layers or (0,)) >= 0, name, layers, "a list of layers from 0 on, such as [1,3]")
        require(self.tokens >= 1, "tokens", self.tokens, "an integer >= 1")
        require(0 <= self.threshold <= 1, "threshold", self.threshold, "a number in [0, 1]")


@dataclass(slots=True)
class Sureness:
    """A row's threshold and the share of its drafts that are accepted."""

    threshold: float
    accepted: float = 0.0

    def update(self, accepted: int, drafted: int, most: int) -> None:
        """After a round that kept so many of its drafts; `most` is how many there could have been."""
        self.accepted = MEMORY * self.accepted + (1 - MEMORY) * accepted / drafted
        aim = self.threshold
        if self.accepted < AIM:
            aim += STEP
        elif drafted < most:
            aim -= STEP
        self.threshold = INERTIA * self.threshold + (1 - INERTIA) * aim


class DraftAndVerify:
    """Controller and observer around the thresholds; says which layers draft."""

    prompt_top = 0

    def __init__(self, config: Config) -> None:
        self._config = config

    def fits(self, has: Capabilities) -> None:
        """Raises CapabilityError where the default would leave nothing out."""
        if None in (self._config.skip_attention, self._config.skip_mlp) and has.layers < 3:
            raise CapabilityError(
                f"draft_and_verify leaves out inner layers by default and the model has {has.layers} layers; name some in "
                "skip_attention and skip_mlp"
            )

    def plans(self, round: Round) -> Sequence[LayerPlan]:
        depth = round.layers["target"]
        plan, every = start_plan(depth), frozenset(range(depth))
        attention, mlp = self._config.skip_attention, self._config.skip_mlp
        kept = plan.attention if attention is None else every - frozenset(attention)
        return [LayerPlan(depth, kept, plan.mlp if mlp is None else every - frozenset(mlp))]

    def _sureness(self, round: Round, row: int) -> Sureness:
        return round.memories.row(round.keys[row], "draft_and_verify", lambda: Sureness(self._config.threshold))

    def claims(self, round: Round) -> int:
        return round.claims

    def more(self, round: Round, answers: Answers, parent: int, column: int) -> np.ndarray:
        thresholds = [self._sureness(round, row).threshold for row in range(round.rows)]
        return drafted_probability(round, answers, parent, column) >= thresholds

    def read_prompts(self, round: Round, prompts: Sequence[Sequence[int]], top: np.ndarray) -> None:
        """Nothing is learned from prompts."""

    def observe(self, outcome: Outcome) -> None:
        round = outcome.round
        most = min(self._config.tokens, round.claims - 1)
        for row, path in enumerate(outcome.verdict.paths) if self._config.adapt else ():
            drafted = int((round.forest.token[row, 1:] != ABSENT).sum())
            if drafted:
                self._sureness(round, row).update(len(path), drafted, most)


def parts(config: Config) -> Parts:
    method = DraftAndVerify(config)
    lists = {"skip_attention": config.skip_attention, "skip_mlp": config.skip_mlp}
    return Parts(
        propose=DraftChain(ask_layers(method.plans), config.tokens),
        verify=Rejection(),
        control=method,
        observe=(method,),
        probabilities=True,
        claims=config.tokens + 1,
        fits=(method.fits, *(check_layers(name, layers or ()) for name, layers in lists.items())),
    )
