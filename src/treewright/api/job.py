"""A checked request, ready to run: the parts of its recipe, a fresh engine, and results out of ended rows."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from treewright.api.constraints import Compiled
from treewright.api.memory import check_memory
from treewright.core.build import build_parts
from treewright.core.errors import InputError
from treewright.core.recipe import Recipe
from treewright.core.request import Request
from treewright.core.result import Result
from treewright.core.roles import Constraint, Parts
from treewright.core.selection import Scorer
from treewright.engine.detokenize import Decode
from treewright.engine.law import check_draws
from treewright.engine.limits import row_limits
from treewright.engine.loop import Engine, Listener, Run
from treewright.engine.rows import Row
from treewright.engine.size import Size
from treewright.models.loading import Form, Loaded
from treewright.ops.weights import log_mean
from treewright.parts.constrain.form import BehindFirst, FixedTokens

CPU_COLUMNS = 64
"""On two cores, rounds wider than this in all (rows times claims) cost more than they bring; see docs/log.md."""


@dataclasses.dataclass(slots=True)
class Job:
    """A checked request over a loaded model, ready to run; made by `prepare`. compiled: its constraints, None where all
    prompts are free. scorers: what judges texts, by role."""

    target: Loaded
    recipe: Recipe
    request: Request
    protocols: dict[str, Any]
    compiled: Compiled | None = None
    scorers: dict[str, Scorer] = dataclasses.field(default_factory=dict)

    def parts(self) -> Parts:
        """Fresh roles of the recipe, the constraints of the request and the model's own form."""
        asked, form = () if self.compiled is None else self.compiled.parts(), self.target.form
        if form.first is not None:
            asked = tuple(BehindFirst(one, self.target.protocol.capabilities.vocabulary) for one in asked)
        parts = build_parts(self.recipe).join(Parts(constrain=asked))
        parts = parts.join(Parts(form=self._form(parts)))
        for fits in parts.fits:
            fits(self.target.protocol.capabilities)
        return parts

    def check(self) -> Parts:
        """Fresh roles, once it is sure that they can do what the request asks for. Raises InputError."""
        parts, request = self.parts(), self.request
        check_draws(parts, request)
        if parts.select is not None:
            self._check_selection(parts)
        size = Size.of(request, parts, self._columns, self.target.protocol.capabilities.mask is not None)
        check_memory(str(self.recipe), request, parts, size, self.protocols, getattr(self.target.model, "device", None))
        return parts

    def _check_selection(self, parts: Parts) -> None:
        request = self.request
        if request.samples > parts.candidates:
            raise InputError(
                f"n is {request.samples} and {self.recipe} chooses among {parts.candidates} candidates; "
                f"ask for at most {parts.candidates}, or raise the method's own number"
            )
        if request.sampling.greedy and parts.candidates > 1 and not (parts.together or parts.slots):
            raise InputError(
                f"temperature is 0 and {self.recipe} chooses among {parts.candidates} candidates, which would all be the same "
                "text; give a temperature > 0"
            )
        if parts.texts and self.target.tokenizer is None:
            raise InputError(f"{self.recipe} compares texts but model '{self.target.name}' has no tokenizer; give one to load()")

    @property
    def _columns(self) -> int | None:
        """The columns that pay on the machine."""
        device = getattr(self.target.model, "device", None)
        return CPU_COLUMNS if getattr(device, "type", "cpu") == "cpu" else None

    def _form(self, parts: Parts) -> tuple[Constraint, ...]:
        """What the model asks of every text. A text of a constraint ends where that lets it, and one that must not end early
        (ignore_eos, or min_new_tokens of the full length) does not: there no last token is fixed."""
        has, request, form = self.target.protocol.capabilities, self.request, self.target.form
        if form == Form():
            return ()
        limits = row_limits(request, self.protocols, parts)
        length = [limit - len(prompt) for limit, prompt in zip(limits, request.prompts, strict=True)]
        asked = request.constraints or (None,) * len(request.prompts)
        last = [
            form.last if one is None and not request.ignore_eos and request.min_new_tokens < most else None
            for one, most in zip(asked, length, strict=True)
        ]  # fmt: skip
        return (FixedTokens(has.vocabulary, form.first, last, form.banned, has.own_text(()), length),)

    def engine(self, listener: Listener | None = None, extra: Parts | None = None) -> Engine:
        """A fresh engine: its parts are new, what methods learned on the model stays. `extra` joins further parts."""
        parts = self.check()
        parts = parts if extra is None else parts.join(extra)
        heard = listener if parts.select is None else None
        memories, decode = self.target.memories, self._decode()
        return Engine(Run(self.request, self.protocols, parts, None, memories, decode, heard, self.scorers, self._columns))

    def _decode(self) -> Decode | None:
        tokenizer = self.target.tokenizer
        if tokenizer is None:
            return None
        return lambda ids: str(tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def finish(self, listener: Listener | None = None) -> list[Result]:
        """Runs to the end; one Result for each prompt. Where a method chooses among candidates, the listener hears of the
        chosen one, and only when all is over."""
        engine = self.engine(listener)
        for _ in engine.run():
            pass
        results = [self._result(engine, prompt) for prompt in range(len(self.request.prompts))]
        if engine.selector is not None and listener is not None:
            for prompt, result in enumerate(results):
                listener.hear(prompt, 0, result.tokens, result.text, True)
        return results

    def _result(self, engine: Engine, prompt: int) -> Result:
        rows, account = engine.ledger.ended(prompt), engine.ledger.accounts[prompt]
        notes: dict[str, Any] = {}
        evidence = self._evidence(engine, prompt)
        if engine.selector is not None:
            candidates = [row.to_candidate(self._text(row)) for row in rows]
            order = engine.selector.select(self._spell(prompt), candidates, self.scorers)
            if engine.selector.hypotheses:
                notes["selection"] = {"hypotheses": len(candidates), "order": order}
            else:
                notes["selection"] = {
                    "candidates": len(candidates), "order": [rows[index].sample for index in order],
                    "given_up": account.given_up, "tokens": account.tokens,
                }  # fmt: skip
            rows = [rows[index] for index in order]
            if len(rows) < self.request.samples:
                notes["selection"]["missing"] = self.request.samples - len(rows)
        samples = [row.to_sample(self._text(row), self.request.logprobs) for row in rows[: self.request.samples]]
        trace = engine.traces[rows[0].key]
        trace.recipe, trace.notes = self.recipe.to_json(), notes
        trace.calls, trace.seconds = account.calls, account.seconds
        first = samples[0]
        return Result(
            first.text, first.tokens, first.finish_reason, first.logprobs, first.log_weight, samples, trace, evidence
        )  # fmt: skip

    def _evidence(self, engine: Engine, prompt: int) -> float | None:
        """The log mean weight of the rows that began; None where draws weigh nothing, or rows were given up by what they say."""
        weights = [row.log_weight for row in engine.ledger.ended(prompt) if row.steps]
        if not engine.weighted or not weights or engine.ledger.accounts[prompt].given_up:
            return None
        return log_mean(np.array(weights))

    def _spell(self, prompt: int) -> str:
        decode = self._decode()
        return "" if decode is None else decode(list(self.request.prompts[prompt]))

    def _text(self, row: Row) -> str:
        decode = self._decode()
        before = self.target.protocol.capabilities.own_text(self.request.prompts[row.prompt])
        return "" if decode is None else row.spell(decode, self.request, before)
