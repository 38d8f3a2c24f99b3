"""Superposed decoding: several short drafts from one forward a token, by feeding the model a mixture of their last tokens.

Shen et al. 2024, "Superposed Decoding: Multiple Generations from a Single Autoregressive Inference Pass"
(https://arxiv.org/abs/2405.18400). The model reads the mean of the drafts' last embeddings, weighted by softmax of their
scores, and answers with one law p for all. A draft d continued by one of the `top` tokens v of p gains (1 - alpha) log p(v) +
alpha log g(v), where g mixes the shares of n-grams in a text, so each draft keeps the tokens that fit its own words. The best
`drafts` go on.

Cost: one target call for each token of all drafts of a prompt, where as many samples would be rows of their own. Prompts of a
batch share calls. The n asked for are the best drafts, at most `drafts`.

Its room is search: it keeps the best continuations by score and returns several. It is deterministic, and another law than the
model's: what a draft gains is the mixture's law. One draft with alpha 0 is greedy decoding. Made for some ten tokens, after
which the mixture means less and less.

Beside the paper: n-grams come from a file of token ids (`corpus`), else from the prompt itself, which knows little, so most
tokens take the penalty. Nothing may be asked of single drafts, so steering, constraints and penalties are refused. Drafts that
end are ranked with those that go on, by score; since scores only fall, the search ends when as many have ended as are kept and no
other can pass them. Where two are equal the better draft's, then the lowest token comes first. All of it is one round.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from treewright.core.claims import ABSENT
from treewright.core.errors import require
from treewright.core.request import Sampling
from treewright.core.roles import Completion, Parts, Round, TargetLaw, Verdict
from treewright.ops.warp import probabilities
from treewright.parts.search.hypotheses import BestScore, room
from treewright.parts.search.ngrams import NGrams, read_tokens, version_of

CARD = {
    "title": "Superposed Decoding: Multiple Generations from a Single Autoregressive Inference Pass",
    "year": 2024,
    "link": "https://arxiv.org/abs/2405.18400",
    "card": 22,
    "aliases": ["superposed decoding", "SPD"],
    "roles": ["verify", "select"],
    "models": [],
    "needs": ["left_to_right", "embeddings"],
    "claims": ["row_independent"],
}


@dataclass(frozen=True)
class Config:
    """
    drafts: texts that are written at once (k)
    alpha: weight of the n-grams against the model; 0 for the model alone
    temperature: of the mixture's law, before it is scored
    top: tokens of that law that a draft may go on with (m)
    weights: of the shares after the last 1, 2, ... tokens; the paper's sum to 0.5
    penalty: what a draft loses for a token where no n-gram knows any of the `top`, in nats
    corpus: .npy file of token ids to count n-grams in, -1 between documents; "" for the prompt itself
    """

    drafts: int = 3
    alpha: float = 0.54
    temperature: float = 0.06
    top: int = 9
    weights: tuple[float, ...] = (0.01, 0.04, 0.15, 0.18, 0.12)
    penalty: float = 200.0
    corpus: str = ""

    def __post_init__(self) -> None:
        require(self.drafts >= 1, "drafts", self.drafts, "an integer >= 1")
        require(0 <= self.alpha <= 1, "alpha", self.alpha, "a number in [0, 1]")
        require(self.temperature > 0, "temperature", self.temperature, "a number > 0")
        require(self.top >= 1, "top", self.top, "an integer >= 1")
        within = bool(self.weights) and min(self.weights) >= 0 and sum(self.weights) <= 1
        require(within, "weights", self.weights, "a list of numbers >= 0 with a sum of at most 1")
        require(self.penalty >= 0, "penalty", self.penalty, "a number >= 0")


@dataclass(frozen=True, slots=True)
class Draft:
    """A text in the making and its score."""

    tokens: tuple[int, ...] = ()
    score: float = 0.0


class Drafts:
    """The drafts of one row: those that go on, and those that ended, best first. `open`: whether any goes on."""

    def __init__(self, config: Config, prompt: Sequence[int], ngrams: NGrams) -> None:
        self._config, self._prompt, self._ngrams = config, list(prompt), ngrams
        self.running, self.ended, self.open = [Draft()], list[Draft](), True

    def expand(self, round: Round, row: int, logits: np.ndarray) -> None:
        """Continues the drafts by one token under the law of logits [V]; keeps the best."""
        config = self._config
        law = probabilities(logits, Sampling(config.temperature))
        tokens = np.argsort(-law, kind="stable")[: config.top]
        tokens = tokens[law[tokens] > 0]
        log_p = np.log(law[tokens] / law[tokens].sum())
        children = []
        for rank, draft in enumerate(self.running):
            gains = self._gains(draft, tokens, log_p)
            children += [
                (-(draft.score + gain), rank, int(token)) for token, gain in zip(tokens, gains, strict=True) if gain > -np.inf
            ]
        before, self.running = self.running, []
        for cost, rank, token in sorted(children)[: 2 * config.drafts]:
            draft = Draft((*before[rank].tokens, token), float(-cost))
            if round.would_end(row, draft.tokens) or len(draft.tokens) == room(round, row):
                self.ended.append(draft)
            elif len(self.running) < config.drafts:
                self.running.append(draft)
        self.ended = sorted(self.ended, key=lambda draft: -draft.score)[: config.drafts]
        full = len(self.ended) == config.drafts
        self.open = bool(self.running) and not (full and self.running[0].score <= self.ended[-1].score)

    def _gains(self, draft: Draft, tokens: np.ndarray, log_p: np.ndarray) -> np.ndarray:
        """What the draft gains by each of the tokens [m]; -inf where no n-gram knows it."""
        alpha = self._config.alpha
        if alpha == 0:
            return log_p
        known = np.zeros(len(tokens))
        context = [*self._prompt, *draft.tokens][-len(self._config.weights) :]
        laws = self._ngrams.laws(context, len(self._config.weights))
        for weight, (seen, share) in zip(self._config.weights, laws, strict=True):
            for token, part in zip(seen, share, strict=True):
                known[tokens == token] += weight * part
        if not known.any():
            return (1 - alpha) * log_p - self._config.penalty
        with np.errstate(divide="ignore"):
            return (1 - alpha) * log_p + alpha * np.log(known)

    def mixture(self) -> tuple[list[int], list[float]]:
        """The last tokens of the running drafts and the weights that they are mixed with; equal tokens once."""
        scores = np.array([draft.score for draft in self.running])
        shares, mixed = np.exp(scores - scores.max()), dict[int, float]()
        for draft, share in zip(self.running, shares / shares.sum(), strict=True):
            mixed[draft.tokens[-1]] = mixed.get(draft.tokens[-1], 0.0) + float(share)
        return list(mixed), list(mixed.values())


class Superposed(BestScore):
    """Verifier and selector: it grows the forest by one mixed claim a row and asks again, until no row has a draft that goes
    on."""

    def __init__(self, config: Config) -> None:
        super().__init__(0.0, config.drafts)
        self._config = config
        self._version = version_of(config.corpus) if config.corpus else 0

    def verify(self, round: Round, law: TargetLaw) -> Verdict:
        rows = [Drafts(self._config, round.text.of(row).tolist(), self._ngrams(round, row)) for row in range(round.rows)]
        column, cut = 0, False
        while not cut:
            for row, drafts in enumerate(rows):
                if drafts.open:
                    drafts.expand(round, row, law.logits(row, column))
            if not any(drafts.open for drafts in rows):
                break
            column = self._grow(round, rows)
            cut = not round.ask()
        return self._verdict(round, rows, column)

    def _ngrams(self, round: Round, row: int) -> NGrams:
        name = self._config.corpus
        if not name:
            return NGrams(round.text.of(row))
        return round.memories.loaded(("n-grams", name, self._version), lambda: NGrams(read_tokens(name)))

    def _grow(self, round: Round, rows: Sequence[Drafts]) -> int:
        """Adds the claim that mixes each row's drafts; its column."""
        most = self._config.drafts
        tokens, weights = np.zeros((round.rows, most), np.int64), np.zeros((round.rows, most))
        shown = np.full((round.rows, 1), ABSENT)
        for row, drafts in enumerate(rows):
            if drafts.open:
                mixed, shares = drafts.mixture()
                tokens[row, : len(mixed)], weights[row, : len(mixed)] = mixed, shares
                shown[row] = mixed[int(np.argmax(shares))]
        column = round.forest.grow([round.forest.columns - 1], shown)[0]
        round.forest.mix[column] = tokens, weights
        return column

    def _verdict(self, round: Round, rows: Sequence[Drafts], mixed: int) -> Verdict:
        """Drafts that ended become candidates, as claims that nobody asks about; a row that a budget cut off keeps its best."""
        verdict = Verdict([], [-1] * round.rows, log_weight=[], finished=[False] * round.rows, dropped=[])
        found = [drafts.ended + drafts.running[:1] * drafts.open for drafts in rows]
        paths = self._spelled_out(round, found, mixed)
        for row, drafts in enumerate(rows):
            for draft, path in zip(drafts.ended, paths[row], strict=False):
                verdict.completed.append(Completion(row, path, -1, draft.score))
            kept = drafts.running[0] if drafts.open else None
            verdict.paths.append([] if kept is None else paths[row][-1])
            verdict.log_weight.append([] if kept is None else [kept.score] + [0.0] * (len(kept.tokens) - 1))  # type: ignore[union-attr]
            verdict.dropped.append(kept is None)  # type: ignore[union-attr]
        return verdict

    def _spelled_out(self, round: Round, found: Sequence[Sequence[Draft]], mixed: int) -> list[list[list[int]]]:
        """Adds the tokens of drafts to the forest, a chain for each; the columns of each. Their answers are the mixture's."""
        width, longest = max(map(len, found)), max(len(draft.tokens) for drafts in found for draft in drafts)
        parents, first = [0] * width, round.forest.columns
        for depth in range(longest):
            token = np.full((round.rows, width), ABSENT)
            for row, drafts in enumerate(found):
                for place, draft in enumerate(drafts):
                    token[row, place] = draft.tokens[depth] if depth < len(draft.tokens) else ABSENT
            parents = list(round.forest.grow(parents, token))
        if round.request.logprobs:
            source = [*range(mixed + 1), *(min(depth + 1, mixed) for depth in range(longest) for _ in range(width))]
            round.answers["target"] = round.answers["target"].map(lambda outputs: outputs[:, source])
        return [
            [[first + depth * width + place for depth in range(len(draft.tokens))] for place, draft in enumerate(drafts)]
            for drafts in found
        ]


def parts(config: Config) -> Parts:
    search = Superposed(config)
    return Parts(
        verify=search, select=search, candidates=config.drafts, slots=1, claims=1, claims_per_token=1, bonus=False,
        whole_laws=True, greedy=True, one_law=True,
    )  # fmt: skip
