"""Certificates: each lossless claim of each method, checked on the model at hand."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from treewright.api import Loaded, fits, prepare
from treewright.core.equality import EXACT_DTYPES, Divergence, first_divergence
from treewright.core.errors import CapabilityError, InputError, require
from treewright.core.randomness import DRAW, Keyed
from treewright.core.recipe import Recipe
from treewright.core.registry import methods as installed
from treewright.core.request import Sampling
from treewright.core.roles import Parts
from treewright.models.loading import Form
from treewright.testing import laws
from treewright.testing.along import Along
from treewright.testing.bench import with_drafter
from treewright.testing.certify_static import certify_static
from treewright.testing.distorted import Distorted
from treewright.testing.reports import Certificate, Finding, timed
from treewright.testing.sampling import ALPHA, sampling_law
from treewright.testing.scoring import bare_reference, read_texts, tolerance_of, tree_scoring

MODEL = "(model)"
"""Stands in the place of a method's name in checks of the model itself."""

TEXTS = (
    "Once upon a time there was a little girl who had a red ball. She loved to",
    "def add(a, b):\n    return",
    "SELECT name, count(*) FROM orders WHERE price > 10 GROUP BY",
    '{"id": 1, "items": [{"name":',
)
LENGTHS = (17, 4, 11, 6)
BATCH = len(TEXTS)
ARRANGEMENTS = ((1, 4), (1, 16), (1, 64), (BATCH, 1), (BATCH, 4), (BATCH, 16))
"""Rows and columns of the forwards at which noise is measured beside (1, 1): kernels differ with the size of a forward."""

NOISE_FACTOR = 5.0
"""How many times the tolerance of tree scoring, a root mean square, the largest single difference may be."""

RESTARTS = 24


def certify(
    model: Loaded,
    methods: Sequence[str] | None = None,
    models: Mapping[str, Loaded] | None = None,
    *,
    prompts: Sequence[Sequence[int]] | None = None,
    new_tokens: int = 32,
    samples: int = 1000,
    seed: int = 0,
    tables: bool = True,
) -> list[Certificate]:
    """Checks the lossless claims of `methods` (None: of every lossless method that fits the model) on this model.

    Of the model: a tree's answers are those of one bare forward for each path; its arithmetic noise is small. Of plain
    decoding: its tokens are those the bare forward gives. Of each method: its law on exact tables (`tables`); its tokens
    equal plain decoding's at temperature 0, one row at a time and four ragged rows together; the same at temperature 1
    through keyed randomness, for methods that match plain sampling draw by draw; for others the law of their first
    tokens, by a chi-square test over `samples` draws.

    A model that fills slots in any order has no plain decoding: there every method that claims `equals_static` is held to its
    static schedule (`certify_static`).

    Tokens that the model's generation configuration fixes or bans are left free, so that all are the model's own.

    Plain decoding one row at a time is the reference. In a 16-bit dtype a divergence passes where the reference's margin is
    below the noise measured on this model; such ties are listed and decoding goes on behind them, so that every token is
    compared. models: further models by role; for a role that is missing a distorted copy of the target drafts, which
    agrees with it often and not always. prompts: four lists of token ids.

    Raises InputError for a method that claims no losslessness, CapabilityError for one that does not fit the model, both
    before anything runs. Cost: a minute on a model of a few million parameters, most of it the draws.
    """
    if model.protocol.capabilities.order != "left_to_right":
        require(not models, "models", list(models or {}), "none where slots are filled in any order")
        return certify_static(model, methods, prompts or default_prompts(model, seed), new_tokens, seed, tables)
    own = replace(model, memories={}, form=Form())
    names = _names(own, methods)
    roles = _models(own, {role for name in names for role in _roles(name)}, models or {})
    bench = _Bench(own, roles, prompts or default_prompts(own, seed), new_tokens, seed)
    for name in names:
        bench.refuse_misfit(name)
    rows = [timed(MODEL, "tree scoring", lambda: _tree_scoring(own, bench.prompts[:3]))]
    rows.append(timed(MODEL, "noise", bench.measure))
    for name in names if bench.measured else ():
        rows += _certify_method(bench, name, samples, tables)
    return rows


def _names(model: Loaded, wanted: Sequence[str] | None) -> list[str]:
    if wanted is None:
        recipes = [with_drafter(card.name) for card in installed() if card.lossless]
        return [recipe for recipe in recipes if fits(model, recipe)]
    for name in wanted:
        lossy = [card.name for card in Recipe.of(name).cards() if not card.lossless]
        if lossy:
            raise InputError(f"method '{lossy[0]}' does not claim to be lossless, so there is nothing to certify; leave it out")
    return [with_drafter(name) for name in wanted]


def _roles(name: str) -> set[str]:
    return Recipe.of(name).roles()


def _models(model: Loaded, needed: Collection[str], given: Mapping[str, Loaded]) -> dict[str, Loaded]:
    unused = sorted(set(given) - set(needed))
    if unused:
        used = ", ".join(sorted(needed)) or "none"
        raise InputError(f"nothing certified uses a model for the role '{unused[0]}'; roles used: {used}")
    return {role: given[role] if role in given else stand_in(model) for role in needed}


def stand_in(model: Loaded, seed: int = 0) -> Loaded:
    """A distorted copy of the model, in the place of a draft model or another role that is not given."""
    return Loaded(f"{model.name} distorted", model.model, model.tokenizer, Distorted(model.protocol, seed))


def default_prompts(model: Loaded, seed: int) -> list[list[int]]:
    """Four ragged prompts as token ids: texts of other kinds, or random ids for a model without a tokenizer."""
    if model.tokenizer is not None:
        return [list(model.tokenizer(text)["input_ids"]) for text in TEXTS]
    chance = np.random.default_rng(seed)
    has = model.protocol.capabilities
    allowed = [token for token in range(has.vocabulary) if token != has.mask]
    return [chance.choice(allowed, length).tolist() for length in LENGTHS]


def _certify_method(bench: _Bench, name: str, samples: int, tables: bool) -> list[Certificate]:
    rows, follows = [], False
    try:
        follows = laws.follows_plain(name)
        if tables:
            rows.append(timed(name, "law on exact tables", lambda: _table_law(name)))
    except CapabilityError:
        pass
    for temperature in (0.0, 1.0) if follows else (0.0,):
        for batch in (1, BATCH):
            keyed = ", keyed" if temperature else ""
            check = f"tokens at temperature {temperature:g}{keyed}, batch {batch}"
            rows.append(timed(name, check, partial(bench.equality, name, temperature, batch)))
    if not follows:
        rows.append(timed(name, "sampling law", lambda: _sampling_law(bench, name, samples)))
    return rows


def _tree_scoring(model: Loaded, prompts: Sequence[Sequence[int]]) -> Finding:
    allowed = tolerance_of(model)
    try:
        report = tree_scoring(model, prompts=prompts)
    except laws.LawBroken as broken:
        return False, str(broken), {"allowed": allowed}
    detail = (
        f"{report.claims} claims; largest |logit| difference {report.largest:.3g}, "
        f"{report.relative:.2g} of the logits' standard deviation (allowed {allowed:g})"
    )
    return True, detail, report.to_json() | {"allowed": allowed}


def _table_law(name: str) -> Finding:
    try:
        report = laws.lossless(name)
    except laws.LawBroken as broken:
        return False, str(broken), {}
    outcomes = report.total("outcomes")
    detail = f"total variation {report.worst:.2g} over {outcomes} outcomes (allowed {report.tolerance:g})"
    return True, detail, {"total_variation": report.worst, "outcomes": outcomes, "allowed": report.tolerance}


def _sampling_law(bench: _Bench, name: str, samples: int) -> Finding:
    tests = sampling_law(bench.model, bench.roles_of(name), name, bench.prompts, samples, bench.seed)
    passed = all(test.p_value >= ALPHA for test in tests.values())
    values, cells = (
        " / ".join(column) for column in zip(*((f"{t.p_value:.3g}", str(t.cells)) for t in tests.values()), strict=True)
    )
    counted = " / ".join(map(str, tests))
    detail = f"chi-square, N = {samples}: p = {values} for the first {counted} tokens ({cells} cells); allowed p >= {ALPHA:g}"
    numbers = {"samples": samples, "alpha": ALPHA, "tests": {str(count): test.to_json() for count, test in tests.items()}}
    return passed, detail, numbers


@dataclass(frozen=True, slots=True)
class _Text:
    """What plain decoding made of a prompt: its new tokens and the one-wide logits behind each."""

    prompt: list[int]
    tokens: list[int]
    logits: list[np.ndarray]


class _Bench:
    """The model, its prompts, what plain decoding says of them, and the noise of the model's arithmetic."""

    def __init__(
        self, model: Loaded, roles: Mapping[str, Loaded], prompts: Sequence[Sequence[int]], new_tokens: int, seed: int
    ) -> None:
        if len(prompts) != BATCH:
            raise InputError(f"prompts holds {len(prompts)} lists of token ids; give {BATCH}")
        self.model, self.prompts, self.seed = model, [list(prompt) for prompt in prompts], seed
        self._models, self._new_tokens = roles, new_tokens
        self._reference: dict[float, list[_Text]] = {}
        self._noise: dict[float, float] = {}
        self._exact = getattr(model.model, "dtype", EXACT_DTYPES[0]) in EXACT_DTYPES

    @property
    def measured(self) -> bool:
        """Whether there is something to compare with: plain decoding itself may have failed."""
        return len(self._noise) == 2

    def roles_of(self, name: str) -> dict[str, Loaded]:
        """The models that a method needs, by role."""
        return {role: self._models[role] for role in sorted(_roles(name))}

    def refuse_misfit(self, name: str) -> None:
        """Raises what `generate` would raise for this method on this model."""
        prepare(self.model, self.prompts, name, None, self.roles_of(name), {"max_new_tokens": self._new_tokens}).parts()

    def measure(self) -> Finding:
        """Decodes the reference texts, and measures the noise: the largest difference of logits (above temperature 0: of
        cumulated probabilities) between forwards of one column and larger ones over the same text."""
        for temperature in (0.0, 1.0):
            texts = self._decode("plain", [()] * BATCH, temperature, 1)[0]
            logits = read_texts(self.model, self.prompts, texts, 1, 1)
            self._reference[temperature] = [_Text(*parts) for parts in zip(self.prompts, texts, logits, strict=True)]
            scale = _cumulated if temperature else _as_it_is
            noise = 0.0
            for rows, columns in ARRANGEMENTS:
                for one, other in zip(logits, read_texts(self.model, self.prompts, texts, rows, columns), strict=True):
                    noise = max(noise, *(float(np.abs(scale(a) - scale(b)).max()) for a, b in zip(one, other, strict=True)))
            self._noise[temperature] = noise
        deviation = float(np.mean([logits.std() for text in self._reference[0.0] for logits in text.logits]))
        allowed = NOISE_FACTOR * tolerance_of(self.model) * deviation
        sizes = ", ".join(f"{rows} x {columns}" for rows, columns in ARRANGEMENTS)
        detail = (
            f"forwards of {sizes} rows and columns differ from 1 x 1 by at most {self._noise[0.0]:.3g} (logits, allowed "
            f"{allowed:.3g}) and {self._noise[1.0]:.3g} (cumulated probability)"
        )
        numbers = {"logits": self._noise[0.0], "allowed": allowed, "probability": self._noise[1.0]}
        return self._noise[0.0] <= allowed, detail, numbers

    def _decode(
        self, name: str, begun: Sequence[Sequence[int]], temperature: float, batch: int
    ) -> tuple[list[list[int]], int, float]:
        """What follows the tokens `begun` of every prompt's text, the columns of the widest forward, and the mean of tokens
        per call. A model that reads its prompts apart is led along the begun tokens, another reads them as prompt."""
        apart = self.model.protocol.capabilities.decoder_start is not None
        led = [list(tokens) if apart else [] for tokens in begun]
        prompts = [[*prompt, *tokens[len(ahead) :]] for prompt, tokens, ahead in zip(self.prompts, begun, led, strict=True)]
        settings = {
            "max_new_tokens": self._new_tokens, "sampling": Sampling(temperature), "seed": self.seed, "ignore_eos": True,
            "batch_rows": batch,
        }  # fmt: skip
        job = prepare(self.model, prompts, name, None, self.roles_of(name), settings)
        along = Along(led, self.model.protocol.capabilities.vocabulary)
        engine = job.engine(extra=Parts(constrain=(along,)) if any(led) else None)
        for _ in engine.run():
            pass
        texts = [engine.finished[number, 0].tokens[len(ahead) :] for number, ahead in enumerate(led)]
        traces = [engine.traces[number, 0] for number in range(BATCH)]
        widest = max(call.rows * call.columns for trace in traces for call in trace.calls if call.model == "target")
        return texts, widest, float(np.mean([trace.tokens_per_call for trace in traces]))

    def equality(self, name: str, temperature: float, batch: int) -> Finding:
        """Tokens of the method against plain decoding, going on behind excused ties."""
        if name == "plain" and batch == 1:
            return self._plain_against_bare(temperature)
        texts, known = self._reference[temperature], [0] * BATCH
        numbers: dict[str, Any] = {"tokens": 0, "ties": [], "noise": self._noise[temperature]}
        for _ in range(RESTARTS):
            begun = [text.tokens[:done] for text, done in zip(texts, known, strict=True)]
            found, width, speed = self._decode(name, begun, temperature, batch)
            numbers.setdefault("tokens_per_call", speed)
            for row, text in enumerate(texts):
                parted = self._compare(row, text, known[row], found[row], width, temperature)
                if parted is not None and not parted.excused:
                    return False, f"row {row} {parted}", numbers
                known[row] = len(text.tokens) if parted is None else parted.index + 1
                if parted is not None:
                    numbers["ties"].append(_tie(row, parted))
            numbers["tokens"] = sum(known)
            if all(done == len(text.tokens) for text, done in zip(texts, known, strict=True)):
                tokens_per_call = f"{numbers['tokens_per_call']:.2f} tokens per call"
                return True, f"{sum(known)} tokens in {BATCH} rows equal, {tokens_per_call}{_listed(numbers['ties'])}", numbers
        return False, f"more than {RESTARTS - 1} runs ended in ties; the noise of this model hides what is to be seen", numbers

    def _compare(
        self, row: int, text: _Text, done: int, found: Sequence[int], width: int, temperature: float
    ) -> Divergence | None:
        """Where the tokens found after `done` known ones leave the reference text, None if nowhere."""
        expected = text.tokens[done:]
        index = first_divergence(expected, found[: len(expected)])
        if index is None:
            return None
        index += done
        if index - done == len(found):
            return Divergence(index, text.tokens[index], None, math.inf, 0.0, width, self._exact)
        return self._judge(row, text, index, found[index - done], width, temperature)

    def _judge(self, row: int, text: _Text, index: int, token: int, width: int, temperature: float) -> Divergence:
        margin = _margin(text.logits[index], token, temperature, self._uniform(row)(len(text.prompt) + index))
        return Divergence(index, text.tokens[index], token, margin, self._noise[temperature], width, self._exact)

    def _uniform(self, row: int) -> Callable[[int], float]:
        keyed = Keyed(self.seed)
        return lambda position: keyed.uniform((row, 0), position, DRAW)

    def _plain_against_bare(self, temperature: float) -> Finding:
        """Each token of the reference texts against what the bare model's forward over the same prefix gives."""
        read, compared = bare_reference(self.model), 0
        numbers: dict[str, Any] = {"tokens": 0, "ties": [], "noise": self._noise[temperature]}
        for row, text in enumerate(self._reference[temperature]):
            for index, token in enumerate(text.tokens):
                width = len(text.prompt) + index
                found = _chosen(read(text.prompt, text.tokens[:index]), temperature, self._uniform(row)(width))
                compared += 1
                if found == token:
                    continue
                parted = self._judge(row, text, index, found, width, temperature)
                if not parted.excused:
                    return False, f"the bare model in row {row} {parted}", numbers
                numbers["ties"].append(_tie(row, parted))
        numbers["tokens"] = compared
        return True, f"{compared} tokens are those of the bare model's forward{_listed(numbers['ties'])}", numbers


def _tie(row: int, parted: Divergence) -> dict[str, Any]:
    return {"row": row, "token": parted.index, "margin": parted.margin, "noise": parted.noise}


def _listed(ties: Sequence[Mapping[str, Any]]) -> str:
    if not ties:
        return ""
    listed = "; ".join(f"row {t['row']} token {t['token']}: margin {t['margin']:.2g} < noise {t['noise']:.2g}" for t in ties)
    return f"; {len(ties)} ties excused ({listed})"


def _as_it_is(logits: np.ndarray) -> np.ndarray:
    return logits.astype(np.float64)


def _cumulated(logits: np.ndarray) -> np.ndarray:
    weights = np.exp(logits.astype(np.float64) - logits.max())
    return np.cumsum(weights) / weights.sum()


def _chosen(logits: np.ndarray, temperature: float, uniform: float) -> int:
    """The token that these logits give: the largest, or the one whose share of the cumulated probability holds `uniform`."""
    if temperature == 0:
        return int(logits.argmax())
    return int(np.searchsorted(_cumulated(logits), uniform, side="right"))


def _margin(logits: np.ndarray, token: int, temperature: float, uniform: float) -> float:
    """How far these logits are from giving `token`; 0 if they give it."""
    if temperature == 0:
        return float(logits.max() - logits[token])
    scale = _cumulated(logits)
    below = float(scale[token - 1]) if token else 0.0
    return max(below - uniform, uniform - float(scale[token]), 0.0)
