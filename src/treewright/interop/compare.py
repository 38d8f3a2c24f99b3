"""Methods side by side on one prompt, with plain decoding and with transformers: equal text, fewer calls, less time?"""

from __future__ import annotations

import dataclasses
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from treewright.api import Loaded, Prompt, load, prepare
from treewright.core.equality import Divergence, judge
from treewright.core.errors import InputError, choices
from treewright.core.randomness import DRAW, Keyed
from treewright.core.recipe import Recipe
from treewright.core.request import Sampling
from treewright.core.trace import Trace
from treewright.interop.peers import PEERS, PeerSettings, network_of

PLAIN = "plain"
OWN_LAW = "its law is another than plain decoding's"


@dataclass(frozen=True, slots=True)
class ComparisonRow:
    """One contestant. text, tokens: its continuation. equal: the tokens are those of plain decoding, under the equality
    rule of `core.equality`, which excuses near ties in a 16-bit dtype; identical: they are so token for token. model_calls:
    forwards of the target that predicted tokens; tokens_per_call: new tokens for each. seconds: median of the repeats.
    ratio_to_plain, ratio_to_peer: tokens a second over those of our plain decoding and of the first of `against` (None
    without one). note: what keeps `equal` from being plain equality, else empty. trace: of the first timed run, None for a
    peer."""

    method: str
    text: str
    tokens: tuple[int, ...]
    equal: bool
    identical: bool
    model_calls: int
    tokens_per_call: float
    seconds: float
    ratio_to_plain: float
    ratio_to_peer: float | None
    note: str
    trace: Trace | None


@dataclass(slots=True)
class _Run:
    """One run of a contestant. width: columns of its widest forward of the target."""

    tokens: list[int]
    text: str
    seconds: float
    model_calls: int
    width: int
    trace: Trace | None


@dataclass(frozen=True, slots=True)
class _Task:
    """What all contestants are asked for, checked."""

    model: Loaded
    prompt: tuple[int, ...]
    models: dict[str, Any]
    options: Mapping[str, Mapping[str, Any]]
    max_new_tokens: int
    temperature: float
    seed: int
    ignore_eos: bool
    constraint: Any


def compare(
    model: Any,
    prompt: Prompt,
    methods: Sequence[str],
    *,
    against: Sequence[str] = (),
    models: Mapping[str, Any] | None = None,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    repeats: int = 3,
    max_new_tokens: int = 128,
    temperature: float = 0.0,
    seed: int = 0,
    ignore_eos: bool = False,
    constraint: Any = None,
) -> list[ComparisonRow]:
    """Decodes one prompt with every method and every peer; rows for plain decoding, the methods and the peers, in order.

    model, prompt, models, constraint: as in `generate`. against: of "transformers", "transformers:prompt_lookup",
    "transformers:assisted" (which takes models["draft"]), without a constraint. options: method name to its options.
    repeats: timed runs of each, taken in turns so that a drift of the machine hits all alike, after one run of each that is
    not timed. Every run starts with nothing learned. At temperature > 0 peers draw their own noise and methods that reject
    draw other tokens from the same law, so their rows are rightly unequal.

    Raises InputError and CapabilityError before anything runs.
    Cost: (repeats + 1) decodings of each, and two more of plain where tokens differ in a 16-bit dtype.
    """
    _check(methods, against, options or {}, repeats)
    if constraint is not None and against:
        raise InputError(f"against is {list(against)} with a constraint, which peers do not take; leave one of them out")
    names = list(dict.fromkeys([PLAIN, *methods]))
    judges = {role for name in names for role in Recipe.of(name, (options or {}).get(name)).scorers()}
    given = (models or {}).items()
    loaded = {role: other if role in judges or isinstance(other, Loaded) else load(other) for role, other in given}
    task = _task(model, prompt, loaded, options or {}, max_new_tokens, temperature, seed, ignore_eos, constraint)
    used = {role for name in names for role in _roles(name, task.options)}
    used |= {"draft"} if "transformers:assisted" in against else set()
    unused = sorted(set(task.models) - used)
    if unused:
        roles = ", ".join(sorted(used)) or "none"
        raise InputError(f"nothing compared uses a model for the role '{unused[0]}'; roles used: {roles}")
    contestants: dict[str, Callable[[], _Run]] = {name: _method(task, name) for name in names}
    contestants |= {name: _peer(task, name) for name in dict.fromkeys(against)}
    runs = _take_turns(contestants, repeats)
    return [_row(task, name, runs, against[0] if against else None) for name in contestants]


def _check(methods: Sequence[str], against: Sequence[str], options: Mapping[str, Mapping[str, Any]], repeats: int) -> None:
    if isinstance(methods, str) or isinstance(against, str):
        raise InputError(f"methods is {methods!r} and against is {against!r}; give lists of names")
    if not methods:
        raise InputError('methods is []; give at least one name, such as ["token_recycling"]')
    if repeats < 1:
        raise InputError(f"repeats is {repeats}; allowed: an integer >= 1")
    for name in against:
        if name not in PEERS:
            raise InputError(f"unknown peer '{name}'; {choices(name, PEERS)}")
    for name in options:
        if name not in (PLAIN, *methods):
            raise InputError(f"options are given for '{name}', which is not compared; {choices(name, methods)}")


def _task(
    model: Any, prompt: Prompt, models: Mapping[str, Any], options: Mapping[str, Mapping[str, Any]],
    max_new_tokens: int, temperature: float, seed: int, ignore_eos: bool, constraint: Any,
) -> _Task:  # fmt: skip
    target = model if isinstance(model, Loaded) else load(model)
    settings = {"max_new_tokens": max_new_tokens, "sampling": Sampling(temperature)}
    ids = prepare(target, [prompt], PLAIN, None, None, settings).request.prompts[0]
    return _Task(target, ids, dict(models), options, max_new_tokens, temperature, seed, ignore_eos, constraint)


def _method(task: _Task, name: str) -> Callable[[], _Run]:
    roles = _roles(name, task.options)
    models = {role: other for role, other in task.models.items() if role in roles}
    settings = {
        "max_new_tokens": task.max_new_tokens, "sampling": Sampling(task.temperature), "seed": task.seed,
        "ignore_eos": task.ignore_eos, "constraint": task.constraint,
    }  # fmt: skip

    def run() -> _Run:
        fresh = dataclasses.replace(task.model, memories={})
        begin = time.perf_counter()
        result = prepare(fresh, [task.prompt], name, task.options.get(name), models, settings).finish()[0]
        seconds = time.perf_counter() - begin
        widths = [call.columns for call in result.trace.calls if call.model == "target" and call.kind == "score"]
        return _Run(result.tokens, result.text, seconds, result.trace.model_calls, max(widths, default=1), result.trace)

    prepare(task.model, [task.prompt], name, task.options.get(name), models, settings).check()
    return run


def _roles(name: str, options: Mapping[str, Mapping[str, Any]]) -> set[str]:
    """The roles of further models, and of what judges texts, that a method asks for."""
    recipe = Recipe.of(name, options.get(name))
    return {role for card in recipe.cards() for role in card.models} | set(recipe.scorers())


def _peer(task: _Task, name: str) -> Callable[[], _Run]:
    settings = PeerSettings(task.max_new_tokens, task.temperature, task.seed, task.ignore_eos, task.models.get("draft"))
    if name == "transformers:assisted" and settings.draft is None:
        raise InputError(f"peer '{name}' needs a model for the role 'draft'; give models={{'draft': ...}} (--with draft=MODEL)")
    for model in (task.model, *([settings.draft] if settings.draft else [])):
        network_of(model)
    tokenizer = task.model.tokenizer

    def run() -> _Run:
        peer = PEERS[name](task.model, [task.prompt], settings)
        tokens = peer.tokens[0]
        text = "" if tokenizer is None else str(tokenizer.decode(tokens, skip_special_tokens=True))
        return _Run(tokens, text, peer.seconds, peer.model_calls, peer.width, None)

    return run


def _take_turns(contestants: Mapping[str, Callable[[], _Run]], repeats: int) -> dict[str, list[_Run]]:
    runs: dict[str, list[_Run]] = {name: [] for name in contestants}
    for turn in range(repeats + 1):
        for name, run in contestants.items():
            made = run()
            if turn > 0:
                runs[name].append(made)
    return runs


def _row(task: _Task, name: str, runs: Mapping[str, Sequence[_Run]], peer: str | None) -> ComparisonRow:
    first, plain = runs[name][0], runs[PLAIN][0]
    divergence = _judge(task, plain, first)
    comparable, note = name in PEERS or _lossless(task, name), ""
    if divergence is not None:
        note = str(divergence) if comparable else OWN_LAW
        among = None if first.trace is None else first.trace.chosen_among
        if among is not None:
            note = f"chosen among {among}, which is another law than plain decoding's"
        elif task.temperature > 0 and not divergence.excused and note != OWN_LAW:
            note += "; peers and methods that reject draw other tokens from the same law, see certify"
    return ComparisonRow(
        method=name, text=first.text, tokens=tuple(first.tokens),
        equal=divergence is None or (comparable and divergence.excused),
        identical=divergence is None, model_calls=first.model_calls,
        tokens_per_call=len(first.tokens) / max(1, first.model_calls),
        seconds=_median_seconds(runs[name]), ratio_to_plain=_speed(runs[name]) / _speed(runs[PLAIN]),
        ratio_to_peer=None if peer is None else _speed(runs[name]) / _speed(runs[peer]), note=note, trace=first.trace,
    )  # fmt: skip


def _lossless(task: _Task, name: str) -> bool:
    return all(card.lossless for card in Recipe.of(name, task.options.get(name)).cards())


def _judge(task: _Task, plain: _Run, other: _Run) -> Divergence | None:
    keyed = Keyed(task.seed)
    parted = judge(
        task.model.protocol, task.prompt, plain.tokens, other.tokens, max(plain.width, other.width), task.temperature,
        lambda position: keyed.uniform((0, 0), position, DRAW),
    )  # fmt: skip
    # A constraint changes the scale that a draw falls on, so no margin of the free law excuses one.
    constrained = parted is not None and task.constraint is not None and task.temperature > 0
    return dataclasses.replace(parted, margin=math.inf) if constrained else parted  # type: ignore[type-var]


def _median_seconds(runs: Sequence[_Run]) -> float:
    return statistics.median(run.seconds for run in runs)


def _speed(runs: Sequence[_Run]) -> float:
    """Tokens a second."""
    return len(runs[0].tokens) / _median_seconds(runs)
