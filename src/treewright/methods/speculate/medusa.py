"""Medusa: heads on the target's last hidden state guess several tokens ahead at once; their best guesses form a sparse tree.

Cai et al. 2024, "Medusa: Simple LLM Inference Acceleration Framework with Multiple Decoding Heads"
(https://arxiv.org/abs/2401.10774). The target predicted the frontier from some hidden state; head i, reading that same state,
guesses the token i + 1 places after the frontier, without knowing the guesses of the heads before it. A claim of the tree is
a rank path: (0, 2) is the third guess of the second head under the first guess of the first.

Cost: one target call a round, and a matrix product for each head and row. The heads are trained for one target
(`treewright train medusa`); the file that comes along is for the bundled `default`. `heads=random` makes untrained ones for
any model, which shows the mechanics and accepts next to nothing.

Beside the paper: its typical acceptance gives another law and is a method to join, `medusa+typical_acceptance`; alone, draws
are matched, so the text is plain decoding's at any temperature. The tree is the one that was measured for the heads on the
target's own held-out text, where their file has one: the rank paths that were right most often *together*, which the paper
estimates by products of single accuracies. Else it is the released 63-node tree. The paper's root is the target's own next
token; here that token is already text (the frontier), so the tree begins with the first head. A row whose prompt is a single
token drafts nothing in its first round: no state has predicted that token. All other first rounds use the state that reading
the prompt left behind. Compiled steps give no hidden states, so `compile` leaves this method's forwards eager.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import torch

from treewright.core.claims import ABSENT, Shape
from treewright.core.errors import require
from treewright.core.roles import Parts, Round
from treewright.core.session import Capabilities
from treewright.parts.heads.medusa_file import Choices, check_choices
from treewright.parts.heads.source import HeadsSource
from treewright.parts.verify.sample_then_match import SampleThenMatch

CARD = {
    "title": "Medusa: Simple LLM Inference Acceleration Framework with Multiple Decoding Heads",
    "year": 2024,
    "link": "https://arxiv.org/abs/2401.10774",
    "card": None,
    "aliases": ["medusa heads", "Medusa-1"],
    "roles": ["propose", "verify"],
    "models": [],
    "needs": ["left_to_right", "tree", "hidden"],
    "claims": ["lossless"],
    "tables": {"heads": "random"},
}

# The tree of the released code ("mc_sim_7b_63"), in its order, which is that of what each path adds.
PAPER_TREE = """
0 00 1 01 2 000 10 02 3 03 4 04 20 05 001 5 06 6 07 010 11 7 08 002 30 09 8 9 100 020 12 003 40 21 004 005 0000 011 006 030
50 13 007 008 009 60 040 14 70 012 200 31 22 80 050 15 101 021 90 060 0001 16 070
"""


@dataclass(frozen=True)
class Config:
    """
    heads: a bundled name, a folder or a file of Medusa heads, or "random" for untrained ones of any model
    nodes: claims a round, the best of the tree; choose it from `treewright bench verify-cost`
    choices: rank paths of the tree, best first; () for those in the heads' file, or else the paper's 63
    """

    heads: str = "default-medusa"
    nodes: int = 63
    choices: tuple[tuple[int, ...], ...] = ()

    def __post_init__(self) -> None:
        require(bool(self.heads), "heads", "''", 'a bundled name, a folder, a file, or "random"')
        require(self.nodes >= 1, "nodes", self.nodes, "an integer >= 1")
        check_choices(self.choices, max(map(len, self.choices), default=1))


def paper_tree() -> Choices:
    """The 63 rank paths of the released tree, best first."""
    return tuple(tuple(map(int, path)) for path in PAPER_TREE.split())


@cache
def tree(choices: Choices, nodes: int, heads: int, vocabulary: int) -> tuple[Shape, np.ndarray, np.ndarray]:
    """The first `nodes` of the choices that heads and vocabulary allow: their shape, and of each claim the head and rank."""
    usable = [path for path in choices if len(path) <= heads and max(path) < vocabulary][:nodes]
    best = sorted(usable, key=lambda path: (len(path), path))
    column = {(): 0} | {path: index for index, path in enumerate(best, start=1)}
    shape = Shape.frontier().grow([column[path[:-1]] for path in best])
    return shape, np.array([len(path) - 1 for path in best], np.int64), np.array([path[-1] for path in best], np.int64)


class MedusaTree:
    """Proposes the heads' guesses in the form of the tree."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._source = HeadsSource(config.heads)
        self.choices: Choices = config.choices or self._source.choices or paper_tree()

    def fits(self, capabilities: Capabilities) -> None:
        """Raises CapabilityError where the heads are for a model of other sizes."""
        self._source.fits(capabilities)
        check_choices(self._config.choices, self._source.heads)

    def propose(self, round: Round) -> None:
        nodes = min(self._config.nodes, round.claims - 1)
        found = [predicting_state(round, row) for row in range(round.rows)]
        known = [row for row, state in enumerate(found) if state is not None]
        if nodes < 1 or not known:
            return
        shape, head, rank = tree(self.choices, nodes, self._source.heads, round.vocabulary)
        top = self._guesses(round, torch.stack([state for state in found if state is not None]), int(rank.max()) + 1)
        token = np.full((round.rows, shape.columns), ABSENT)
        token[:, :1] = round.forest.token
        token[np.array(known)[:, None], np.arange(1, shape.columns)] = top[head, :, rank].T
        round.forest.replace(shape, token)

    def _guesses(self, round: Round, states: torch.Tensor, count: int) -> np.ndarray:
        """The most probable tokens of every head for states [R, H], [heads, R, count] on the host."""
        kind = (round.vocabulary, states.shape[-1], states.dtype, str(states.device))
        key = ("medusa", self._config.heads, self._source.version, *kind)
        heads = round.memories.loaded(key, lambda: self._source.load(states, round.vocabulary))
        with torch.inference_mode():
            return heads(states).topk(count, dim=-1).indices.cpu().numpy()


def predicting_state(round: Round, row: int) -> torch.Tensor | None:
    """The target's last hidden state [H] that predicted the frontier of a row; None where the target has not read so far."""
    session = round.sessions["target"]
    # From the end: the session's own prompt may be longer or shorter than the engine's.
    states, ahead = session.states(row), int(session.seen[row]) - int(round.text.length[row]) + 1
    return states[-1 - ahead] if 0 <= ahead < len(states) else None


def parts(config: Config) -> Parts:
    medusa = MedusaTree(config)
    claims = min(config.nodes, len(medusa.choices)) + 1
    return Parts(propose=medusa, verify=SampleThenMatch(), claims=claims, hidden=True, fits=(medusa.fits,), row_drafts=True)
