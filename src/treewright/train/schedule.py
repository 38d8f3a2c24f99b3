"""The warm-up, stable, decay (WSD) learning-rate schedule, counted in tokens.

The stable part does not know how long the run is, so the budget can be changed on resume and a
run can be told to finish now; wall-clock time plays no part, so pausing the process is harmless.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

DECAY_SHARE_ON_FINISH = 0.25


@dataclass(frozen=True)
class Schedule:
    """Token counts at which the parts begin: [0, warm_up), stable, [decay_start, total)."""

    warm_up: int
    decay_start: int
    total: int

    def __post_init__(self) -> None:
        if not 0 <= self.decay_start < self.total or self.warm_up < 0:
            raise ValueError(f"schedule {self} has no decay; choose 0 <= decay_start < total and warm_up >= 0")

    @classmethod
    def for_budget(cls, total: int, warm_up: int, decay_share: float) -> Schedule:
        """A schedule that spends the last `decay_share` of `total` tokens on decay."""
        if total < 1 or not 0 < decay_share < 1:
            raise ValueError(
                f"budget of {total} tokens with decay share {decay_share} is not possible; "
                "give at least 1 token and a share strictly between 0 and 1"
            )
        return cls(min(warm_up, total // 10), int(total * (1 - decay_share)), total)

    def scale(self, tokens: int) -> float:
        """Learning-rate factor in [0, 1] after `tokens` tokens."""
        if tokens >= self.decay_start:
            return max(0.0, (self.total - tokens) / (self.total - self.decay_start))
        return min(1.0, (tokens + 1) / self.warm_up) if self.warm_up else 1.0

    def with_budget(self, total: int, decay_share: float, tokens: int) -> Schedule:
        """The same run with another budget, decided after `tokens` tokens.

        Decay never starts in the past: a smaller budget makes it begin now.

        Raises:
            ValueError: the new total is already spent.
        """
        if total <= tokens:
            raise ValueError(f"token budget {total} is already spent ({tokens} tokens done); give more than {tokens} tokens")
        return replace(self, decay_start=max(tokens, int(total * (1 - decay_share))), total=total)

    def finish_now(self, tokens: int, decay_tokens: int | None = None) -> Schedule:
        """Begin the decay at `tokens`, for `decay_tokens` (default: a quarter of `tokens`).

        A run that decays already is left as it is.
        """
        if tokens >= self.decay_start:
            return self
        length = decay_tokens or max(1, int(tokens * DECAY_SHARE_ON_FINISH))
        return replace(self, decay_start=tokens, total=tokens + length)
