"""The rows of a run: who they are, when they end, what they leave behind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from treewright.core.request import Request
from treewright.core.result import FinishReason, Sample
from treewright.core.selection import Candidate
from treewright.core.trace import Step
from treewright.engine.detokenize import Decode, TextStream, continuation_text


@dataclass(slots=True)
class Row:
    """One continuation in the making. `prompt` and `sample` say whose; they are its key of randomness and stay with the
    slot when a row is forked into it. `fresh`: the tokens that became text this round. `checks`: how often its constraints were
    asked about one token in this round. `kept` False: the row was given up and
    leaves nothing behind. `slot`: of a completed hypothesis, the slot it left."""

    prompt: int
    sample: int
    stream: TextStream | None
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    log_weight: float = 0.0
    finish: FinishReason | None = None
    first_call: int = 0
    started: float = 0.0
    fresh: list[int] = field(default_factory=list)
    kept: bool = True
    slot: int | None = None
    checks: int = 0

    @property
    def key(self) -> tuple[int, int]:
        return self.prompt, self.sample

    def take_from(self, other: Row) -> Row:
        """This slot continuing the history of another row (a fork)."""
        return Row(
            self.prompt, self.sample, other.stream and other.stream.fork(), list(other.tokens), list(other.logprobs),
            list(other.steps), other.log_weight, other.finish, other.first_call, other.started, slot=self.slot,
            checks=other.checks,
        )  # fmt: skip

    def give_up(self) -> None:
        """Ends the row; it is no candidate."""
        self.finish, self.kept = self.finish or "cancelled", False

    def would_end(self, tokens: Sequence[int], request: Request) -> bool:
        """Whether these tokens would end the row at an end id or a stop string; the row stays as it is."""
        ends, stream = request.ends, self.stream and self.stream.fork()
        for count, token in enumerate(tokens, start=len(self.tokens) + 1):
            enough = count >= request.min_new_tokens
            if (enough and token in ends) or (stream is not None and stream.push(token, enough)):
                return True
        return False

    def accept(self, tokens: list[int], request: Request, room: int) -> list[int]:
        """Takes offered tokens until one of them ends the row; `room` is how many may still come. Returns those taken."""
        ends = request.ends
        most = room if request.budget.tokens is None else min(room, request.budget.tokens - len(self.tokens))
        taken: list[int] = []
        for token in tokens[:most]:
            taken.append(token)
            enough = len(self.tokens) + len(taken) >= request.min_new_tokens
            if enough and token in ends:
                self.finish = "stop"
                break
            if self.stream is not None and self.stream.push(token, enough):
                self.finish = "stop"
                break
        self.tokens += taken
        self.fresh = taken
        if self.finish is None and len(taken) == most:
            self.finish = "length" if most == room else "budget"
        return taken

    def spell(self, decode: Decode, request: Request, before: Sequence[int] | None = None) -> str:
        """The text of an ended row: what its tokens spell, without the id that ended it, cut before a stop string. before:
        what the row's own text begins with, its prompt if not given."""
        if self.stream is not None:
            self.stream.close()
            return self.stream.text
        ended_by_id = self.finish == "stop" and self.tokens[-1] in request.ends
        before = request.prompts[self.prompt] if before is None else before
        return continuation_text(decode, before, self.tokens[:-1] if ended_by_id else self.tokens)

    def to_candidate(self, text: str = "") -> Candidate:
        slot = self.sample if self.slot is None else self.slot
        return Candidate(
            self.sample, self.tokens, text, self.finish or "cancelled", self.log_weight, sum(self.logprobs), slot, self.prompt
        )

    def to_sample(self, text: str, keep_logprobs: bool) -> Sample:
        return Sample(text, self.tokens, self.finish or "cancelled", self.logprobs if keep_logprobs else None, self.log_weight)


def closed_up(rows: Sequence[Row]) -> list[int]:
    """The indices of the rows that go on, in an order that moves as few of them as possible: holes are filled from the end."""
    alive = [index for index, row in enumerate(rows) if row.finish is None]
    behind = iter([index for index in alive if index >= len(alive)])
    return [place if rows[place].finish is None else next(behind) for place in range(len(alive))]
