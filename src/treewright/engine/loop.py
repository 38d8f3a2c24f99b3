"""The loop: propose, score, verify, apply, observe, commit. It knows no method and no model family by name."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from treewright.core.answers import Answers
from treewright.core.randomness import Keyed, Randomness
from treewright.core.request import Request
from treewright.core.roles import Memories, Outcome, Parts, Round, Verdict
from treewright.core.session import Model, Opening, Recorder, Session
from treewright.core.text import Text
from treewright.core.trace import Call, Step, Trace
from treewright.engine.detokenize import Decode, TextStream
from treewright.engine.law import PulledLaw, logprobs
from treewright.engine.rows import Row
from treewright.ops.warp import probabilities


class Listener(Protocol):
    """Hears of tokens as they become text. Returning False cancels the row."""

    def hear(self, prompt: int, sample: int, tokens: list[int], piece: str, finished: bool) -> bool: ...


@dataclass(slots=True)
class Run:
    """Everything a run needs beside the request. `models` must hold "target"; others are named by the parts.

    `decode` turns token ids into text (None: no text is made). `columns`: the most columns, rows times claims, that pay on
    this machine, None for no limit. `clock` is injected so that budgets can be tested.
    """

    request: Request
    models: Mapping[str, Model]
    parts: Parts
    randomness: Randomness | None = None
    memories: dict[Any, Any] = field(default_factory=dict)
    decode: Decode | None = None
    listener: Listener | None = None
    columns: int | None = None
    clock: Callable[[], float] = time.perf_counter


class Engine:
    """Decodes one request. `run()` yields after each round; results are in `finished`, by (prompt, sample)."""

    def __init__(self, run: Run) -> None:
        request, parts = run.request, run.parts
        self._run, self._request, self._parts = run, request, parts
        self._randomness = run.randomness or Keyed(request.seed)
        self._memories = Memories(run.memories)
        self._calls: list[Call] = []
        self._rows: list[Row] = []
        self._waiting = deque((p, s) for p in range(len(request.prompts)) for s in range(request.samples))
        self.finished: dict[tuple[int, int], Row] = {}
        self.traces: dict[tuple[int, int], Trace] = {}
        self._started = run.clock()
        self._rounds = 0
        longest = self._limits(range(len(request.prompts)))
        self._text = Text(max(longest))
        self._capacity = min(request.batch_rows, len(self._waiting))
        opening = Opening(
            parts.claims, self._capacity, max(longest), parts.hidden,
            max((observer.prompt_top for observer in parts.observe), default=0),
        )  # fmt: skip
        self._sessions: dict[str, Session] = {
            name: model.open(self._text, opening, self._recorder(name)) for name, model in run.models.items()
        }
        self._steering_models = sorted({name for part in parts.steer for name in part.models})

    def _limits(self, prompts: Sequence[int] | range) -> list[int]:
        most = self._run.models["target"].capabilities.max_length
        lengths = [len(self._request.prompts[prompt]) + self._request.max_new_tokens for prompt in prompts]
        return [length if most is None else min(length, most) for length in lengths]

    def _recorder(self, name: str) -> Recorder:
        def record(kind: str, rows: int, columns: int, seconds: float) -> None:
            self._calls.append(Call(name, kind, rows, columns, seconds))

        return record

    def run(self) -> Iterator[None]:
        """Rounds until every row has ended. Closing the iterator cancels what is left."""
        try:
            while self._waiting or self._rows:
                self._admit()
                self._round()
                yield
        finally:
            for row in self._rows:
                row.finish = row.finish or "cancelled"
                self._close(row)
            self._rows.clear()

    def _admit(self) -> None:
        """Lets waiting samples in while there is room; samples of one prompt share the reading of it."""
        room = self._capacity - len(self._rows)
        entering = [self._waiting.popleft() for _ in range(min(room, len(self._waiting)))]
        if not entering:
            return
        unique = sorted({prompt for prompt, _ in entering})
        prompts = [list(self._request.prompts[prompt]) for prompt in unique]
        before, first_call, now = len(self._rows), len(self._calls), self._run.clock()
        self._text.admit(prompts, self._limits(unique))
        for name, session in self._sessions.items():
            session.admit(self._text, [self._prompt_for(name, prompt) for prompt in prompts])
        source = [*range(before), *(before + unique.index(prompt) for prompt, _ in entering)]
        if len(entering) > len(unique):
            self._select(source)
        for prompt, sample in entering:
            self._rows.append(Row(prompt, sample, self._stream(prompt), first_call=first_call, started=now))
        top = self._sessions["target"].prompt_top
        if top is not None:
            for observer in self._parts.observe:
                if observer.prompt_top:
                    observer.read_prompts(self._new_round(), prompts, top)

    def _prompt_for(self, model: str, prompt: Sequence[int]) -> Sequence[int]:
        for part in self._parts.steer:
            if model in part.models:
                prompt = part.prompt(model, prompt)
        return prompt

    def _stream(self, prompt: int) -> TextStream | None:
        run = self._run
        if run.decode is None or not (self._request.stop or run.listener):
            return None
        return TextStream(run.decode, self._request.prompts[prompt], self._request.stop)

    def _new_round(self) -> Round:
        claims = self._parts.claims
        if self._run.columns is not None:
            claims = max(1, min(claims, self._run.columns // max(1, len(self._rows))))
        return Round(
            self._text, self._request, self._sessions, self._randomness, self._memories,
            [row.key for row in self._rows], self._draft_law, claims, self._run.models["target"].capabilities.vocabulary, self._rounds,
        )  # fmt: skip

    def _draft_law(self, logits: np.ndarray) -> np.ndarray:
        return np.stack([probabilities(row, self._request.sampling) for row in logits])

    def _round(self) -> None:
        round, parts = self._new_round(), self._parts
        if parts.control is not None:
            round.claims = max(1, min(round.claims, parts.control.claims(round)))
        if parts.propose is not None:
            parts.propose.propose(round)
        round.forest.limit_depth(self._text.remaining() - 1)
        target = self._sessions["target"].score(round.forest)
        round.answers["target"] = target
        for name in self._steering_models:
            round.answers[name] = self._sessions[name].score(round.forest)
        law = PulledLaw(round, parts, target, round.answers)
        verdict = parts.verify.verify(round, law)  # type: ignore[union-attr]
        outcome = self._apply(round, verdict, target)
        for observer in parts.observe:
            observer.observe(outcome)
        self._commit(outcome)
        self._rounds += 1
        self._end_rows(verdict)

    def _apply(self, round: Round, verdict: Verdict, target: Answers) -> Outcome:
        """Truncates the verdict at stops and limits and makes it text."""
        if round.forest.slot is not None:
            return self._fill(round, verdict)
        emitted, extra = [], verdict.extra if verdict.rows is None else [-1] * len(self._rows)
        for index, row in enumerate(self._rows):
            path = verdict.paths[index]
            tokens = [int(round.forest.token[index, column]) for column in path]
            offered = tokens + [extra[index]] if extra[index] >= 0 else tokens
            room = int(self._text.limit[index] - self._text.length[index])
            taken = row.accept(offered, self._request, room) if offered else []
            if len(taken) < len(offered):
                path = verdict.paths[index] = path[: len(taken)]
            self._note(round, row, index, path, taken, target)
            if verdict.log_weight is not None:
                row.log_weight += sum(verdict.log_weight[index][: len(taken)])
            self._text.append(index, taken)
            emitted.append(taken)
        return Outcome(round, verdict, emitted)

    def _fill(self, round: Round, verdict: Verdict) -> Outcome:
        """Any-order families: accepted claims and the extra token are written into their slots."""
        emitted = []
        for index, row in enumerate(self._rows):
            path = verdict.paths[index]
            writes = [(int(round.forest.slot[index, c]), int(round.forest.token[index, c])) for c in path]  # type: ignore[index]
            if verdict.extra[index] >= 0 and verdict.extra_slot is not None:
                writes.append((verdict.extra_slot[index], verdict.extra[index]))
            for slot, token in writes:
                self._text.fill(index, slot, token)
            emitted.append([token for _, token in writes])
            row.tokens += emitted[-1]
            self._note(round, row, index, path, emitted[-1], None)
            if verdict.finished is not None and verdict.finished[index]:
                row.finish = "stop"
        return Outcome(round, verdict, emitted)

    def _note(
        self, round: Round, row: Row, index: int, path: list[int], taken: list[int], target: Answers | None
    ) -> None:
        forest = round.forest
        parent = forest.shape.parent[0 if forest.shape.shared else index].tolist()
        row.steps.append(Step(row.sample, forest.token[index].tolist(), parent, list(path), taken))
        if self._request.logprobs and target is not None:
            row.logprobs += logprobs(target, index, [0, *path], taken)

    def _commit(self, outcome: Outcome) -> None:
        verdict = outcome.verdict
        for session in self._sessions.values():
            session.commit(verdict.paths)
        if verdict.rows is not None:
            self._select(verdict.rows)
            self._rows = [slot.take_from(self._rows[source]) for slot, source in zip(self._rows, verdict.rows, strict=True)]
            for index, (row, token) in enumerate(zip(self._rows, verdict.extra, strict=True)):
                room = int(self._text.limit[index] - self._text.length[index])
                self._text.append(index, row.accept([token], self._request, room))
        if self._run.listener is not None:
            self._tell(outcome)

    def _tell(self, outcome: Outcome) -> None:
        listener = self._run.listener
        for row, tokens in zip(self._rows, outcome.emitted, strict=True):
            piece = row.stream.release() if row.stream is not None else ""
            if row.finish is not None and row.stream is not None:
                piece += row.stream.close()
            if not listener.hear(row.prompt, row.sample, tokens, piece, row.finish is not None):  # type: ignore[union-attr]
                row.finish = row.finish or "cancelled"

    def _select(self, rows: Sequence[int]) -> None:
        self._text.select(rows)
        for session in self._sessions.values():
            session.select(rows)

    def _end_rows(self, verdict: Verdict) -> None:
        """Takes ended rows out, moving as few of the others as possible."""
        spent = self._budget_spent()
        for index, row in enumerate(self._rows):
            if row.finish is None and verdict.finished is not None and verdict.finished[index]:
                row.finish = "dead_end"
            row.finish = row.finish or ("budget" if spent else None)
        if all(row.finish is None for row in self._rows):
            return
        alive = [index for index, row in enumerate(self._rows) if row.finish is None]
        for row in self._rows:
            if row.finish is not None:
                self._close(row)
        holes = [index for index in range(len(alive)) if self._rows[index].finish is not None]
        order = list(range(len(alive)))
        for hole, index in zip(holes, [index for index in alive if index >= len(alive)], strict=True):
            order[hole] = index
        self._rows = [self._rows[index] for index in order]
        self._select(order)

    def _budget_spent(self) -> bool:
        budget = self._request.budget
        calls = sum(c.model == "target" and c.kind == "score" for c in self._calls) if budget.model_calls else 0
        out_of_calls = budget.model_calls is not None and calls >= budget.model_calls
        return out_of_calls or (budget.seconds is not None and self._run.clock() - self._started >= budget.seconds)

    def _close(self, row: Row) -> None:
        trace = Trace(
            calls=self._calls[row.first_call :], steps=row.steps, new_tokens=len(row.tokens),
            seconds=self._run.clock() - row.started,
            cache_bytes=sum(session.cache_bytes() for session in self._sessions.values()),
        )  # fmt: skip
        self.finished[row.key] = row
        self.traces[row.key] = trace

