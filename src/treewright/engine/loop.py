"""The loop: propose, score, verify, apply, observe, commit. It knows no method and no model family by name."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np

from treewright.core.answers import Answers
from treewright.core.layers import LayerPlan
from treewright.core.memories import Memories
from treewright.core.randomness import Keyed, Randomness
from treewright.core.request import Request
from treewright.core.result import FinishReason
from treewright.core.roles import Parts, Round, TargetLaw, Turn, Verdict
from treewright.core.selection import Scorer, Selector
from treewright.core.session import Model, Opening, Session
from treewright.core.text import Text
from treewright.core.trace import Trace
from treewright.engine.detokenize import Decode, TextStream, continuation_text
from treewright.engine.law import PulledLaw, check_draws
from treewright.engine.ledger import Ledger
from treewright.engine.limits import prompt_for, row_limits, steering_models
from treewright.engine.meter import Meter
from treewright.engine.rows import Row, closed_up
from treewright.engine.size import Size
from treewright.engine.writer import Writer
from treewright.ops.warp import probabilities


class Listener(Protocol):
    """Hears of tokens as they become text, once a round for every row, and once with `finished` True. Returning False
    cancels the row."""

    def hear(self, prompt: int, sample: int, tokens: list[int], piece: str, finished: bool) -> bool: ...


@dataclass(slots=True)
class Run:
    """Everything a run needs beside the request. `models` must hold "target"; others are named by the parts.

    `decode` turns token ids into text (None: no text is made). `scorers`: what judges texts, by role. `columns`: the most
    columns, rows times claims, that pay on this machine, None for no limit. `clock` is injected so that budgets can be tested.
    """

    request: Request
    models: Mapping[str, Model]
    parts: Parts
    randomness: Randomness | None = None
    memories: dict[Any, Any] = field(default_factory=dict)
    decode: Decode | None = None
    listener: Listener | None = None
    scorers: Mapping[str, Scorer] = field(default_factory=dict)
    columns: int | None = None
    clock: Callable[[], float] = time.perf_counter


class Engine:
    """Decodes one request. `run()` yields after each round; results are in `finished`, by (prompt, sample), and what all
    rows of a prompt took, given up ones included, in `ledger.accounts`."""

    def __init__(self, run: Run) -> None:
        request, parts = run.request, run.parts
        check_draws(parts, request)
        self._run, self._request, self._parts = run, request, parts
        self._randomness = run.randomness or Keyed(request.seed)
        self._memories = Memories(run.memories)
        self._meter = Meter(request.budget, run.clock)
        self._rows: list[Row] = []
        size = Size.of(request, parts, run.columns, run.models["target"].capabilities.mask is not None)
        self.ledger = Ledger(size.slots)
        self._waiting = deque((p, s) for p in range(len(request.prompts)) for s in range(size.slots))
        self._rounds = 0
        self._steering_models = steering_models(parts)
        named = ((name, model.capabilities.translation) for name, model in run.models.items())
        self._translations = {name: translation for name, translation in named if translation is not None}
        self._limits = row_limits(request, run.models, parts)
        self._text = Text(max(self._limits), run.models["target"].capabilities.mask)
        self._writer = Writer(self._text, request, request.logprobs or parts.logprobs)
        self._claims_kept = parts.claims_per_token * max(
            limit - len(prompt) for limit, prompt in zip(self._limits, request.prompts, strict=True)
        )
        self._group, self._capacity = size.group, size.rows
        opening = Opening(
            size.claims + self._claims_kept, self._capacity, max(self._limits), parts.hidden,
            max((observer.prompt_top for observer in parts.observe), default=0), reuse=parts.reuse,
        )  # fmt: skip
        drafting = replace(opening, prompt_top=0, claims=max(opening.claims, parts.drafts + self._claims_kept))
        read = max(opening.claims, min(parts.reads, max(self._limits)))
        target = replace(opening, layers=parts.layers, claims=read)
        openings = {name: target if name == "target" else drafting for name in run.models}
        self._sessions: dict[str, Session] = {
            name: model.open(self._text, openings[name], self._meter.recorder(name)) for name, model in run.models.items()
        }

    @property
    def selector(self) -> Selector | None:
        """What chooses among the candidates of a prompt, where a method does."""
        return self._parts.select

    @property
    def finished(self) -> dict[tuple[int, int], Row]:
        """Rows that have ended, by (prompt, sample)."""
        return self.ledger.finished

    @property
    def traces(self) -> dict[tuple[int, int], Trace]:
        """How they were decoded, by (prompt, sample)."""
        return self.ledger.traces

    @property
    def weighted(self) -> bool:
        """Whether the rows' log weights estimate the mass that their constraints leave."""
        parts = self._parts
        weighed = parts.draw is not None and parts.draw.weighs and bool(parts.constrain)
        return not self._request.sampling.greedy and (parts.weighted or weighed)

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
            self._give_up_waiting("cancelled")

    def _admit(self) -> None:
        """Lets waiting samples in while there is room; samples of one prompt share the reading of it."""
        room = (self._capacity - len(self._rows)) // self._group * self._group
        entering = [self._waiting.popleft() for _ in range(min(room, len(self._waiting)))]
        if not entering:
            return
        if self._parts.apart:
            self._memories = self._memories.fresh()
        unique = sorted({prompt for prompt, _ in entering})
        prompts = [list(self._request.prompts[prompt]) for prompt in unique]
        before, first_call, now = len(self._rows), len(self._meter.calls), self._meter.now()
        self._text.admit(prompts, [self._limits[prompt] for prompt in unique])
        for name, session in self._sessions.items():
            session.admit(self._text, [prompt_for(self._parts, name, prompt) for prompt in prompts])
        source = [*range(before), *(before + unique.index(prompt) for prompt, _ in entering)]
        if len(entering) > len(unique):
            self._select(source)
        for prompt, sample in entering:
            self._rows.append(Row(prompt, sample, self._stream(prompt), first_call=first_call, started=now))
        top = self._sessions["target"].prompt_top
        if top is not None:
            for observer in self._parts.observe:
                if observer.prompt_top:
                    observer.read_prompts(self._new_round(), prompts, top[..., : observer.prompt_top])

    def _stream(self, prompt: int) -> TextStream | None:
        run = self._run
        if run.decode is None or not (self._request.stop or run.listener):
            return None
        before = run.models["target"].capabilities.own_text(self._request.prompts[prompt])
        return TextStream(run.decode, before, self._request.stop)

    def _new_round(self) -> Round:
        claims = self._parts.claims
        if self._run.columns is not None and (self._parts.bonus or self._text.blank is not None):
            # Where a text depends on its drafts, they must not depend on how many rows there are.
            sharing = 1 if self._parts.drafts_decide else max(1, len(self._rows))
            claims = max(1, min(claims, self._run.columns // sharing))
        round = Round(
            self._text, self._request, self._sessions, self._randomness, self._memories,
            [row.key for row in self._rows], self._draft_law, claims + self._claims_kept,
            self._run.models["target"].capabilities.vocabulary, self._rounds, [row.log_weight for row in self._rows],
            self._parts.bonus, lambda row, tokens: self._rows[row].would_end(tokens, self._request),
            control=self._parts.control, scorers=self._run.scorers, spell=self._spell,
            layers={name: model.capabilities.layers for name, model in self._run.models.items()},
            written=self._written, spell_prompt=self._spell_prompt,
            translations=self._translations,
        )  # fmt: skip
        round.ask = lambda: self._ask(round)
        return round

    def _at_frontier(self, round: Round, law: TargetLaw) -> TargetLaw:
        """The law, once the models that make it have answered at the frontier."""
        if self._parts.drive is not None:
            self._score(round)
            return law
        for name in ("target", *self._steering_models):
            round.answers[name] = self._sessions[name].root()
        return law

    def _draft_law(self, logits: np.ndarray) -> np.ndarray:
        return np.stack([probabilities(row, self._request.sampling) for row in logits])

    def _round(self) -> None:
        begun, before, columns = time.perf_counter(), self._meter.target_calls, self._meter.columns
        round, parts = self._new_round(), self._parts
        law = PulledLaw(round, parts, self._run.models["target"].capabilities.decoder_start)
        round.ask_law = lambda: self._at_frontier(round, law)
        if parts.control is not None:
            round.claims = max(1, min(round.claims, parts.control.claims(round)))
        if parts.propose is not None:
            round.let_propose(parts.propose)
        if self._text.blank is None:
            round.forest.limit_depth(round.deepest)
        self._score(round)
        verdict = (parts.accept or parts.verify).verify(round, law)  # type: ignore[union-attr]
        asked = self._meter.target_calls - before
        for row, checks in zip(self._rows, law.checks, strict=True):
            row.checks = checks
        for done in verdict.completed:
            source = self._rows[done.row]
            sample = self.ledger.next_beside(source.prompt)
            self._close(self._writer.complete(round, source, done, sample, asked))
        if verdict.rows is not None:
            self._regroup(round, verdict.rows)
        outcome = self._writer.apply(round, self._rows, verdict, asked)
        outcome.seconds = 0.0 if parts.drafts_decide else time.perf_counter() - begun
        outcome.columns = self._meter.columns - columns
        for observer in parts.observe:
            observer.observe(outcome)
        for session in self._sessions.values():
            session.commit(verdict.paths)
        self._rounds += 1
        self._end_rows(verdict)

    def _score(self, round: Round) -> None:
        for name in self._steering_models if self._parts.drive else ("target", *self._steering_models):
            round.answers[name] = self._sessions[name].score(round.forest)
        if self._parts.drive is not None:
            round.turns = self._parts.drive.turns(round)
            self._drive(round, round.turns)

    def _drive(self, round: Round, turns: Sequence[Turn]) -> None:
        """Asks whoever a driver names, and puts each row's answers in the target's place."""
        found: dict[str, Answers] = {}
        for name in sorted({turn.model for turn in turns if turn.model is not None}):
            session, depth = self._sessions[name], self._run.models[name].capabilities.layers
            parts = [turn.plan if turn.model == name else None for turn in turns]
            plans = [plan or LayerPlan.whole(depth) for plan in parts] if any(parts) else []
            found[name] = round.answers[name] = session.score(round.forest, plans)
        if found:
            spare = next(iter(found.values()))
            round.answers["target"] = Answers.by_row([spare if turn.model is None else found[turn.model] for turn in turns])

    def _spell(self, row: int, tokens: Sequence[int]) -> str:
        """The text of tokens that would follow the row's own new tokens."""
        decode, slot = self._run.decode, self._rows[row]
        return "" if decode is None else continuation_text(decode, [*self._before(slot), *slot.tokens], tokens)

    def _written(self, row: int) -> str:
        decode, slot = self._run.decode, self._rows[row]
        return "" if decode is None else continuation_text(decode, self._before(slot), slot.tokens)

    def _before(self, row: Row) -> Sequence[int]:
        """What the row's text begins with, as the target reads it."""
        return self._run.models["target"].capabilities.own_text(self._request.prompts[row.prompt])

    def _spell_prompt(self, row: int) -> str:
        decode = self._run.decode
        return "" if decode is None else decode(list(self._request.prompts[self._rows[row].prompt]))

    def _ask(self, round: Round) -> bool:
        if self._meter.spent():
            return False
        self._score(round)
        return True

    def _regroup(self, round: Round, rows: Sequence[int]) -> None:
        """Makes row i a copy of row rows[i], with its live claims, its history and what methods remember of it."""
        if len(rows) != len(self._rows):
            raise ValueError(f"a verdict names {len(rows)} rows; the round has {len(self._rows)}, and slots neither come nor go")
        if list(rows) == list(range(len(rows))):
            return
        self._select(rows)
        round.forest.select(rows)
        self._memories.fork(round.keys, [round.keys[source] for source in rows])
        self._rows = [slot.take_from(self._rows[source]) for slot, source in zip(self._rows, rows, strict=True)]
        round.log_weight = [row.log_weight for row in self._rows]
        self._score(round)

    def _select(self, rows: Sequence[int]) -> None:
        self._text.select(rows)
        for session in self._sessions.values():
            session.select(rows)

    def _end_rows(self, verdict: Verdict) -> None:
        """Settles who has ended, tells the listener, and takes ended rows out, moving as few of the others as possible."""
        spent = self._meter.spent()
        for index, row in enumerate(self._rows):
            if row.finish is None and verdict.finished is not None and verdict.finished[index]:
                row.finish = "dead_end"
            if verdict.dropped is not None and verdict.dropped[index]:
                row.give_up()
            row.finish = row.finish or ("budget" if spent else None)
            if self._run.listener is not None and not self._tell(row):
                row.finish = row.finish or "cancelled"
        if spent:
            self._give_up_waiting("budget")
        if self._parts.select is not None:
            waiting = [prompt for prompt, _ in self._waiting]
            settled = self.ledger.settle(self._parts.select, self._request.samples, self._rows, waiting)
            self._waiting = deque(key for key in self._waiting if key[0] not in settled)
        if all(row.finish is None for row in self._rows):
            return
        for row in self._rows:
            if row.finish is not None:
                self._close(row)
        order = closed_up(self._rows)
        self._rows = [self._rows[index] for index in order]
        self._select(order)

    def _tell(self, row: Row) -> bool:
        piece = row.stream.release() if row.stream is not None else ""
        if row.finish is not None and row.stream is not None:
            piece += row.stream.close()
        return self._run.listener.hear(row.prompt, row.sample, row.fresh, piece, row.finish is not None)  # type: ignore[union-attr]

    def _give_up_waiting(self, reason: FinishReason) -> None:
        """Ends the samples that never got a row. Where something is chosen among others, what never began is not, unless
        nothing of its prompt began."""
        now = self._meter.now() if self._waiting else 0.0
        began = {row.prompt for row in self._rows} if self._parts.select is not None else set()
        while self._waiting:
            prompt, sample = self._waiting.popleft()
            if prompt in began or (self._parts.select is not None and self.ledger.ended(prompt)):
                continue
            row = Row(prompt, sample, None, finish=reason, first_call=len(self._meter.calls), started=now)
            if self._run.listener is not None and reason == "budget":
                self._tell(row)
            self._close(row)

    def _close(self, row: Row) -> None:
        if not self.ledger.is_beside(row):
            self._memories.forget(row.key)
        cache_bytes = sum(session.cache_bytes() for session in self._sessions.values())
        self.ledger.close(row, self._meter.calls, self._meter.now(), cache_bytes)
