"""Sequential Monte Carlo: particles that are held to a constraint token by token, weighed by what it forbade, and resampled.

Lew et al. 2023, "Sequential Monte Carlo Steering of Large Language Models using Probabilistic Programs"
(https://arxiv.org/abs/2306.03081). Under a constraint sampling goes astray: a beginning that the model likes is kept though
almost all it likes to say next is forbidden. So `particles` texts of a prompt are decoded side by side, and each has a weight:
the product of the masses that the constraint left at its tokens. Where few particles hold most of the weight, they are
resampled: heavy ones are copied, light ones dropped, and all weigh the mean. Weighted particles follow the model's own law
conditioned on the constraint, in the limit of many; at any number the mean weight is an unbiased estimate of the mass of the
texts that the constraint allows (`Result.log_evidence`), and weighted counts of any property are unbiased for it times that.

Cost: one target call for each token of the longest particle, `particles` rows wide. The weights are exact where the
constraint has masks; with `awrs` they are its unbiased estimates, and no mask is computed. The law is what the constraint
leaves of the warped law, after top-k and the others. The user gets one particle, drawn by weight (`choose`), or the first n
of such draws without replacement. With threshold 0 nothing is resampled: importance sampling.

Beside the paper: a particle that has ended keeps its weight and leaves; only those that go on are resampled, among
themselves, which is unbiased too and throws no finished text away. A particle that no token can follow is replaced at once.
There is no critic. `whole` gives weight 0 to what the length limit cuts off; without it the last tokens' texts count as
beginnings of allowed ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from treewright.core.errors import require
from treewright.core.randomness import SEARCH, Randomness
from treewright.core.roles import Parts, Round, TargetLaw, Verdict
from treewright.core.selection import Candidate, Scorer
from treewright.ops.weights import effective_number, log_mean, relative, settled
from treewright.parts.select.ranking import AllEnd

CARD = {
    "title": "Sequential Monte Carlo Steering of Large Language Models using Probabilistic Programs",
    "year": 2023,
    "link": "https://arxiv.org/abs/2306.03081",
    "card": None,
    "aliases": ["sequential Monte Carlo", "particle filter", "SMC steering"],
    "roles": ["verify", "select"],
    "models": [],
    "needs": ["left_to_right"],
    "claims": ["properly_weighted"],
    "tables": {"particles": 2, "threshold": 1.0},
}


@dataclass(frozen=True)
class Config:
    """
    particles: texts decoded side by side for each prompt
    threshold: resample where the effective number of particles is below this share of them; 0 never
    resampling: systematic spreads one random number evenly, multinomial draws one for each particle
    choose: the particle that is returned, drawn by weight or the heaviest
    whole: particles that the length limit cuts off weigh nothing
    """

    particles: int = 8
    threshold: float = 0.5
    resampling: Literal["systematic", "multinomial"] = "systematic"
    choose: Literal["draw", "heaviest"] = "draw"
    whole: bool = False

    def __post_init__(self) -> None:
        require(self.particles >= 1, "particles", self.particles, "an integer >= 1")
        require(0 <= self.threshold <= 1, "threshold", self.threshold, "a number from 0 to 1")


class Particles(AllEnd):
    """Verifier of one token for each particle and round, and selector of the particle that is returned."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._randomness: Randomness | None = None

    def verify(self, round: Round, law: TargetLaw) -> Verdict:
        self._randomness = round.randomness
        drawn = [law.draw(row, 0) for row in range(round.rows)]
        tokens = [token for token, _ in drawn]
        gained = np.array([weight for _, weight in drawn])
        left = round.text.remaining() - 1
        ended = [token >= 0 and round.would_end(row, [token]) for row, token in enumerate(tokens)]
        if self._config.whole:
            gained[[not end and left[row] == 0 for row, end in enumerate(ended)]] = -np.inf
        weights = np.add(round.log_weight, gained)
        sources, new = list(range(round.rows)), weights.copy()
        prompts: dict[int, list[int]] = {}
        for row, (prompt, _) in enumerate(round.keys):
            if left[row] > 0 and not ended[row]:
                prompts.setdefault(prompt, []).append(row)
        for rows in prompts.values():
            if self._unequal(weights[rows]):
                chosen = self._resample(round, rows, relative(weights[rows]))
                for row, source in zip(rows, chosen, strict=True):
                    sources[row], new[row] = source, log_mean(weights[rows])
        offered = [tokens[source] for source in sources]
        added = [[float(new[row] - round.log_weight[source])] for row, source in enumerate(sources)]
        moved = sources if sources != list(range(round.rows)) else None
        dead = [token < 0 for token in offered]
        return Verdict([[] for _ in sources], offered, log_weight=added, finished=dead, rows=moved)

    def _unequal(self, weights: np.ndarray) -> bool:
        """Whether particles that go on are to be resampled: too few count, or one of them cannot go on."""
        enough = self._config.threshold * len(weights)
        few = effective_number(weights) < enough or (enough > 0 and not np.isfinite(weights).all())
        return few and bool(np.isfinite(weights).any())

    def _resample(self, round: Round, rows: list[int], weights: np.ndarray) -> list[int]:
        """For each of these rows the row it continues: row j as often, in the mean, as its share of the weights."""
        places = [(round.keys[row], round.position(row, 0)) for row in rows]
        if self._config.resampling == "multinomial":
            sources = [round.randomness.index(weights, key, position, SEARCH) for key, position in places]
        else:
            ends = np.cumsum(weights) / weights.sum() * len(rows)
            # One uniform decides all; between two fractional parts of the ends it always decides the same.
            cuts = np.concatenate([[0.0], np.sort(ends % 1.0), [1.0]])
            piece = round.randomness.index(np.diff(cuts), *places[0], SEARCH)
            comb = np.arange(len(rows)) + (cuts[piece] + cuts[piece + 1]) / 2
            sources = np.minimum(np.searchsorted(ends, comb, side="right"), np.flatnonzero(weights)[-1]).tolist()
        return [rows[source] for source in settled(sources)]

    def select(self, prompt: str, candidates: Sequence[Candidate], scorers: Mapping[str, Scorer]) -> list[int]:
        weights = relative(np.array([candidate.log_weight for candidate in candidates]))
        alive = np.flatnonzero(weights)
        if len(alive) == 0:
            return [0]
        heaviest = sorted(alive.tolist(), key=lambda place: -weights[place])
        if self._config.choose == "heaviest" or self._randomness is None:
            return heaviest
        key, order = (candidates[0].prompt, 0), []
        for trial in range(len(alive)):
            # Position 0 belongs to the prompt's first token, which nobody draws.
            order.append(self._randomness.index(weights, key, 0, SEARCH, trial))
            weights[order[-1]] = 0.0
        return order


def parts(config: Config) -> Parts:
    particles = Particles(config)
    return Parts(verify=particles, select=particles, candidates=config.particles, together=True, weighted=True, greedy=False)
