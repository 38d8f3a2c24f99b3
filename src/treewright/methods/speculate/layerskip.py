"""LayerSkip: the model drafts with its first layers and its own head, and checks the draft with all of them.

Elhoushi et al. 2024, "LayerSkip: Enabling Early Exit Inference and Self-Speculative Decoding"
(https://arxiv.org/abs/2404.16710). A chain of `tokens` drafts comes from layers 0 .. E-1, the final norm and the output
matrix; then the whole model scores the chain and speculative sampling keeps a prefix. The paper's models are trained for it,
with layers dropped and a loss at every exit. On other models it runs as well and is exact, but few drafts are accepted.

Cost: one target call and `tokens` forwards of E layers a round. Lossless: draws of the exit's own warped law above temperature
0, argmaxes at 0.

Beside the paper: the verifying call runs all layers over the drafts; the released code keeps the drafts' hidden states at the
exit and goes on from there. That saves arithmetic and reads no fewer weights, since layers below E run for the last draft
anyway. A chain that has met the end of the text is drafted on; what follows is cut off.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from treewright.core.errors import require
from treewright.core.layers import LayerPlan
from treewright.core.roles import Parts, Round
from treewright.parts.propose.draft_model import DraftChain
from treewright.parts.propose.self_draft import ask_layers, check_layers
from treewright.parts.verify.rejection import Rejection

CARD = {
    "title": "LayerSkip: Enabling Early Exit Inference and Self-Speculative Decoding",
    "year": 2024,
    "link": "https://arxiv.org/abs/2404.16710",
    "card": 126,
    "aliases": ["early exit", "self-speculative decoding"],
    "roles": ["propose", "verify"],
    "models": [],
    "needs": ["left_to_right", "tree", "layers"],
    "claims": ["lossless"],
    "tables": {"tokens": 1},
}


@dataclass(frozen=True)
class Config:
    """
    exit_layer: layers that draft; by default a quarter of the model's, at least one
    tokens: drafts a round
    """

    exit_layer: int | None = None
    tokens: int = 6

    def __post_init__(self) -> None:
        require(self.exit_layer is None or self.exit_layer >= 1, "exit_layer", self.exit_layer, "an integer >= 1, or none")
        require(self.tokens >= 1, "tokens", self.tokens, "an integer >= 1")


class EarlyExit:
    """Which layers draft."""

    def __init__(self, config: Config) -> None:
        self._exit = config.exit_layer

    def plans(self, round: Round) -> Sequence[LayerPlan]:
        depth = round.layers["target"]
        return [LayerPlan.until(depth, self._exit or max(1, depth // 4))]


def parts(config: Config) -> Parts:
    asked = [] if config.exit_layer is None else [config.exit_layer]
    return Parts(
        propose=DraftChain(ask_layers(EarlyExit(config).plans), config.tokens),
        verify=Rejection(),
        probabilities=True,
        claims=config.tokens + 1,
        row_drafts=True,
        fits=(check_layers("exit_layer", asked, lowest=1, beyond=1),),
    )
