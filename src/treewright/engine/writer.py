"""A verdict becomes text: cut at stops and limits, written where it belongs, and noted in the rows' traces."""

from __future__ import annotations

from collections.abc import Sequence

from treewright.core.request import Request
from treewright.core.roles import Completion, Outcome, Round, Verdict
from treewright.core.text import Text
from treewright.core.trace import Step
from treewright.engine.law import logprobs
from treewright.engine.rows import Row


class Writer:
    """Writes what rounds decided. logprobs: whether rows keep the target's log-probabilities of their tokens.

    `asked` is in each method how often the target was asked in the round, for the trace.
    """

    def __init__(self, text: Text, request: Request, logprobs: bool) -> None:
        self._text, self._request = text, request
        self._logprobs = logprobs and text.blank is None

    def complete(self, round: Round, source: Row, done: Completion, sample: int, asked: int) -> Row:
        """An ended row of its own, numbered `sample`, of a hypothesis that ended beside its row `source`. The text of the
        rows stays as it is."""
        row = Row(source.prompt, sample, None, slot=source.sample).take_from(source)
        offered = [int(round.forest.token[done.row, column]) for column in done.path]
        offered += [done.token] if done.token >= 0 else []
        taken = self._accept(done.row, row, offered)
        row.finish, row.log_weight = row.finish or "stop", row.log_weight + done.log_weight
        self._note(round, row, done.row, done.path, taken, asked)
        return row

    def apply(self, round: Round, rows: Sequence[Row], verdict: Verdict, asked: int) -> Outcome:
        """Truncates the verdict at stops and limits and makes it text; `rows` are those of the round, in order."""
        emitted = []
        for index, row in enumerate(rows):
            path, extra = verdict.paths[index], verdict.extra[index]
            claimed = round.forest.token[index]
            offered = [int(claimed[column]) for column in path]
            if extra >= 0:
                offered.append(extra)
            written = [] if verdict.written is None else verdict.written[index]
            if self._text.blank is None:
                taken = self._accept(index, row, offered + [token for _, token in written])
                row.fresh = taken
                self._text.append(index, taken)
                if len(taken) < len(offered):
                    path = verdict.paths[index] = path[: len(taken)]
                    verdict.extra[index] = -1
                del written[max(0, len(taken) - len(offered)) :]
            else:
                taken = self._fill(round, index, row, verdict, offered)
            if verdict.log_weight is not None:
                given = verdict.log_weight[index]
                # What was drawn after the row's end counts no more than the tokens that were.
                row.log_weight += sum(given if row.finish is None else given[: len(taken)])
            self._note(round, row, index, path, taken, asked, [column for column, _ in written])
            emitted.append(taken)
        return Outcome(round, verdict, emitted)

    def _accept(self, index: int, row: Row, offered: list[int]) -> list[int]:
        room = int(self._text.limit[index] - self._text.length[index])
        return row.accept(offered, self._request, room) if offered else []

    def _fill(self, round: Round, index: int, row: Row, verdict: Verdict, offered: list[int]) -> list[int]:
        """Any-order families: claims and the extra token go into their slots. The row's tokens are what lies before the
        first open slot, so a stop counts once everything before it is settled."""
        slots = [int(round.forest.slot[index, column]) for column in verdict.paths[index]]  # type: ignore[index]
        fills = verdict.fills[index] if verdict.fills is not None else []
        start = int(self._text.prompt[index]) + len(row.tokens)
        for slot, token in [*zip(slots, offered, strict=True), *fills]:
            self._text.fill(index, slot, token)
        for slot in verdict.revoked[index] if verdict.revoked is not None else ():
            if slot < start:
                raise ValueError(f"slot {slot} of row {index} cannot be opened again: it is before {start} and settled")
            self._text.fill(index, slot, self._text.blank)  # type: ignore[arg-type]
        settled = self._text.settled(index, start, None if verdict.final is None else verdict.final[index])
        row.fresh = row.accept(settled, self._request, int(self._text.length[index]) - start) if settled else []
        return offered + [token for _, token in fills]

    def _note(
        self, round: Round, row: Row, index: int, path: list[int], taken: list[int], asked: int, beyond: Sequence[int] = ()
    ) -> None:
        """Adds the round to the row's account; beyond: the columns at which tokens behind the extra one were predicted."""
        forest = round.forest
        parent = forest.shape.parent[0 if forest.shape.shared else index].tolist()
        model = round.turns[index].model if round.turns else "target"
        calls = asked if model == "target" else 0
        row.steps.append(Step(row.sample, forest.token[index].tolist(), parent, list(path), taken, calls, row.checks, model))
        if self._logprobs:
            row.logprobs += logprobs(round.answers["target"], index, [0, *path, *beyond], taken)
