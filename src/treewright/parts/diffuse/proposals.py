"""What stands in the open slots of a canvas if one answer of a masked model is taken at its word, and which slot comes first."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy

import numpy as np
import torch

from treewright.core.answers import Answers
from treewright.core.randomness import DRAW, SEARCH
from treewright.core.roles import Round
from treewright.ops.warp import penalised, probabilities

RANKS = ("confidence", "top", "margin", "entropy", "random")
"""Which slot is filled first: by the probability of the token that was proposed for it (LLaDA's low-confidence remasking,
Dream's maskgit_plus), by its largest probability, by the distance of its two largest, by its entropy, or by chance. All but
the first look at the state alone, so that at one slot a step they change no law."""


Fills = list[tuple[int, int]]
"""(slot, token) pairs, the best rank first."""


class Look:
    """One answer's open slots. The law of a slot: the model's logits, end-of-text ids forbidden before `min_new_tokens`,
    bias and penalties (whose prefix is what the canvas holds), then the request's warpers. Softmax is in float32 or better."""

    def __init__(self, round: Round, answers: Answers, row: int, column: int, canvas: np.ndarray, slots: Sequence[int]) -> None:
        self._round, self._row = round, row
        self._slots = np.asarray(slots, np.int64)
        assert answers.field is not None
        self._logits = self._edited(answers.field.logits(row, column, slots), canvas)
        self._probs = self._logits.softmax(-1)

    def _edited(self, logits: torch.Tensor, canvas: np.ndarray) -> torch.Tensor:
        request, prompt = self._round.request, int(self._round.text.prompt[self._row])
        early = np.flatnonzero(self._slots - prompt < request.min_new_tokens)
        if len(early) and request.ends:
            logits[torch.from_numpy(early)[:, None], sorted(request.ends)] = -torch.inf
        if request.sampling.logit_bias or request.sampling.history:
            held = canvas[(np.arange(len(canvas)) < prompt) | (canvas != self._round.text.blank)]
            changed = [penalised(row, held, prompt, request.sampling) for row in logits.cpu().numpy()]
            logits = torch.from_numpy(np.stack(changed)).to(logits)
        return logits

    def among(self, slots: np.ndarray) -> Look:
        """The same look at some of its slots."""
        if len(slots) == len(self._slots):
            return self
        kept, part = torch.from_numpy(np.searchsorted(self._slots, slots)), copy(self)
        part._slots, part._logits, part._probs = slots, self._logits[kept], self._probs[kept]
        return part

    def fills(self, rank: str, left: int, most: int, ends_last: bool = False) -> Fills:
        """The `most` slots that rank best, the lower slot on a tie, and what is proposed for them.

        left: open slots of the whole canvas. It keys the noise, so that a state draws the same whatever led to it. ends_last:
        proposed end-of-text ids rank behind everything else.
        """
        every = np.arange(len(self._slots))
        if rank == "confidence" or ends_last:
            tokens, score = self.proposals(left)
            if rank != "confidence":
                score = self._score(rank, left, len(every))
            if ends_last:
                score = score - 1e6 * np.isin(tokens, sorted(self._round.request.ends))
            best = np.argsort(-score, kind="stable")[:most]
            return list(zip(self._slots[best].tolist(), tokens[best].tolist(), strict=True))
        best = np.argsort(-self._score(rank, left, most), kind="stable")[:most]
        return list(zip(self._slots[best].tolist(), self._tokens(best, left).tolist(), strict=True))

    def proposals(self, left: int) -> tuple[np.ndarray, np.ndarray]:
        """A token for every slot, [S], and its probability at temperature 1, [S]."""
        tokens = self._tokens(np.arange(len(self._slots)), left)
        chosen = torch.from_numpy(tokens).to(self._probs.device)[:, None]
        return tokens, self._probs.gather(1, chosen)[:, 0].cpu().numpy()

    def _tokens(self, chosen: np.ndarray, left: int) -> np.ndarray:
        round, sampling = self._round, self._round.request.sampling
        logits = self._logits[torch.from_numpy(chosen).to(self._logits.device)]
        if sampling.greedy:
            return logits.argmax(-1).cpu().numpy()
        key, draw = round.keys[self._row], round.randomness.index
        laws = (probabilities(one, sampling) for one in logits.cpu().numpy())
        slots = self._slots[chosen].tolist()
        return np.array([draw(law, key, slot, DRAW, left) for slot, law in zip(slots, laws, strict=True)], np.int64)

    def _score(self, rank: str, left: int, most: int) -> np.ndarray:
        if rank == "top":
            return self._probs.amax(-1).cpu().numpy()
        if rank == "margin":
            best = self._probs.topk(2, dim=-1).values
            return (best[:, 0] - best[:, 1]).cpu().numpy()
        if rank == "entropy":
            return -torch.special.entr(self._probs).sum(-1).cpu().numpy()
        return self._shuffled(left, most)

    def _shuffled(self, left: int, most: int) -> np.ndarray:
        """The first `most` slots of a uniform order, each drawn by the number of slots that are still open then."""
        round, key = self._round, self._round.keys[self._row]
        waiting, score = list(range(len(self._slots))), np.zeros(len(self._slots))
        while waiting and most > 0:
            drawn = round.randomness.index(np.ones(len(waiting)), key, int(round.text.prompt[self._row]), SEARCH, left)
            score[waiting.pop(drawn)] = left
            left, most = left - 1, most - 1
        return score
