"""What has ended in a run: rows by key, their traces, and what the rows of each prompt took together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from treewright.core.selection import Selector
from treewright.core.trace import Call, Trace
from treewright.engine.rows import Row


@dataclass(slots=True)
class Account:
    """What the rows of one prompt took together, from the entry of the first to the end of the last. tokens: those that the
    rows held when they ended, of rows that were given up too; what a hypothesis that ended beside its row holds is the row's.
    given_up: rows that began and leave nothing behind."""

    first_call: int
    started: float
    calls: list[Call] = field(default_factory=list)
    seconds: float = 0.0
    tokens: int = 0
    given_up: int = 0

    def add(self, row: Row, calls: list[Call], now: float, beside: bool) -> None:
        """Enters a row that has ended by now, `beside` another one or not; `calls` are those of the run so far."""
        self.first_call, self.started = min(self.first_call, row.first_call), min(self.started, row.started)
        self.calls, self.seconds = calls[self.first_call :], now - self.started
        self.given_up += not row.kept
        self.tokens += 0 if beside else len(row.tokens)


class Ledger:
    """finished, traces: by (prompt, sample), of rows that were kept. accounts: by prompt. slots: rows that a prompt is decoded
    in; samples from there on are hypotheses that ended beside a row."""

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self.finished: dict[tuple[int, int], Row] = {}
        self.traces: dict[tuple[int, int], Trace] = {}
        self.accounts: dict[int, Account] = {}
        self._ended: defaultdict[int, list[Row]] = defaultdict(list)

    def close(self, row: Row, calls: list[Call], now: float, cache_bytes: int) -> None:
        """Enters a row that has ended by now; `calls` are those of the run so far."""
        account = self.accounts.setdefault(row.prompt, Account(row.first_call, row.started))
        account.add(row, calls, now, self.is_beside(row))
        if row.kept:
            self._ended[row.prompt].append(row)
            self.finished[row.key] = row
            self.traces[row.key] = Trace(
                calls=calls[row.first_call :], steps=row.steps, new_tokens=len(row.tokens), seconds=now - row.started,
                cache_bytes=cache_bytes,
            )  # fmt: skip

    def is_beside(self, row: Row) -> bool:
        """Whether the row is a hypothesis that ended beside another."""
        return row.sample >= self.slots

    def ended(self, prompt: int) -> list[Row]:
        """The continuations of a prompt that have ended: those of its slots in order, then completed hypotheses in theirs."""
        return sorted(self._ended[prompt], key=lambda row: row.sample)

    def next_beside(self, prompt: int) -> int:
        """The sample number of the next hypothesis of a prompt that ends beside its row."""
        return self.slots + sum(map(self.is_beside, self._ended[prompt]))

    def settle(self, selector: Selector, wanted: int, rows: Sequence[Row], waiting: Sequence[int]) -> set[int]:
        """Gives up the rows of which the selector says that what has ended is enough; the prompts of which nothing more need
        begin. wanted: continuations of a prompt that are always waited for. waiting: the prompts of samples without a row."""
        settled = set()
        for prompt in {row.prompt for row in rows}:
            own, queued = [row for row in rows if row.prompt == prompt], waiting.count(prompt)
            ended = [*self.ended(prompt), *(row for row in own if row.finish is not None and row.kept)]
            running = [row for row in own if row.finish is None]
            lengths = {len(row.tokens) for row in running} | ({0} if queued else set())
            over = {at for at in lengths if self._is_enough(selector, wanted, ended, len(running) + queued, at)}
            for row in running:
                if len(row.tokens) in over:
                    row.give_up()
            settled |= {prompt} if 0 in over else set()
        return settled

    def _is_enough(self, selector: Selector, wanted: int, ended: Sequence[Row], going_on: int, length: int) -> bool:
        """Whether the selector gives up a row that has `length` tokens. What ended with more is running still in a world where
        every row gains one token a round."""
        before = [row for row in ended if self.is_beside(row) or len(row.tokens) <= length]
        running = going_on + len(ended) - len(before)
        return len(before) >= wanted and selector.enough([row.to_candidate() for row in before], running)
