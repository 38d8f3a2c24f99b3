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
from treewright.core.equality import Divergence, first_divergence, judge
from treewright.core.errors import InputError, choices
from treewright.core.randomness import DRAW, Keyed
from treewright.core.recipe import Recipe
from treewright.core.request import Sampling
from treewright.core.trace import Trace
from treewright.interop.peers import PEERS, PeerSettings, network_of

PLAIN = "plain"
STATIC = "llada"
"""What methods of a model that fills slots in any order are compared with, which has no plain decoding."""

EQUALS_STATIC = "equals_static"


@dataclass(frozen=True, slots=True)
class ComparisonRow:
    """One contestant. text, tokens: its continuation. equal: the tokens are those of the reference, which is plain decoding,
    or the static schedule `llada` where slots are filled in any order, under the equality rule of `core.equality`, which
    excuses near ties of plain decoding in a 16-bit dtype; identical: they are so token for token. model_calls: forwards of the
    target that predicted tokens, those of rows that were not chosen included; tokens_per_call: tokens of the text for each.
    seconds: median of the repeats.
    ratio_to_plain, ratio_to_peer: tokens a second over those of our reference and of the first of `against` (None
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
    """What all contestants are asked for, checked. reference: the method they are compared with."""

    reference: str
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
    """Decodes one prompt with every method and every peer; rows for plain decoding (`llada` where the model fills slots in any
    order), the methods and the peers, in order.

    model, prompt, models, constraint: as in `generate`. against: of "transformers", "transformers:prompt_lookup",
    "transformers:assisted" (which takes models["draft"]), without a constraint. options: method name to its options.
    repeats: timed runs of each, taken in turns so that a drift of the machine hits all alike, after one run of each that is
    not timed. Every run starts with nothing learned. At temperature > 0 peers draw their own noise and methods that reject
    draw other tokens from the same law, so their rows are rightly unequal.

    Raises InputError and CapabilityError before anything runs.
    Cost: (repeats + 1) decodings of each, and two more of plain where tokens differ in a 16-bit dtype.
    """
    methods, options = _called(methods, options or {})
    _check(methods, against, options, repeats)
    model = model if isinstance(model, Loaded) else load(model)
    reference = PLAIN if model.protocol.capabilities.order == "left_to_right" else STATIC
    if reference != PLAIN and against:
        raise InputError(
            f"against is {list(against)}, but model '{model.name}' fills slots in any order, which peers do not; leave it out"
        )
    if constraint is not None and against:
        raise InputError(f"against is {list(against)} with a constraint, which peers do not take; leave one of them out")
    names = list(dict.fromkeys([reference, *methods]))
    judges = {role for name in names for role in Recipe.of(name, options.get(name)).scorers()}
    given = (models or {}).items()
    loaded = {role: other if role in judges or isinstance(other, Loaded) else load(other) for role, other in given}
    task = _task(reference, model, prompt, loaded, options, max_new_tokens, temperature, seed, ignore_eos, constraint)
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


def _called(
    methods: Sequence[str], options: Mapping[str, Mapping[str, Any]]
) -> tuple[Sequence[str], Mapping[str, Mapping[str, Any]]]:
    """The same with the names of methods in the place of aliases."""
    if isinstance(methods, str):
        return methods, options
    names = {name: Recipe.of(name).name for name in [*methods, *options]}
    return [names[name] for name in methods], {names[name]: own for name, own in options.items()}


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
        if name not in (PLAIN, STATIC, *methods):
            raise InputError(f"options are given for '{name}', which is not compared; {choices(name, methods)}")


def _task(
    reference: str, model: Loaded, prompt: Prompt, models: Mapping[str, Any], options: Mapping[str, Mapping[str, Any]],
    max_new_tokens: int, temperature: float, seed: int, ignore_eos: bool, constraint: Any,
) -> _Task:  # fmt: skip
    settings = {"max_new_tokens": max_new_tokens, "sampling": Sampling(temperature)}
    ids = prepare(model, [prompt], reference, None, None, settings).request.prompts[0]
    return _Task(reference, model, ids, dict(models), options, max_new_tokens, temperature, seed, ignore_eos, constraint)


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
    return recipe.roles() | set(recipe.scorers())


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
        return _Run(tokens, text, peer.seconds, peer.model_calls or 0, peer.width or 1, None)

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
    first, plain = runs[name][0], runs[task.reference][0]
    divergence = _judge(task, plain, first)
    comparable, note = name in PEERS or _comparable(task, name), ""
    if divergence is not None:
        note = str(divergence) if comparable else _own_law(task, name)
        among = None if first.trace is None else first.trace.chosen_among
        if among is not None:
            note = f"chosen among {among}, which is another law than plain decoding's"
        elif task.temperature > 0 and comparable and not divergence.excused and task.reference == PLAIN:
            note += "; peers and methods that reject draw other tokens from the same law, see certify"
    return ComparisonRow(
        method=name, text=first.text, tokens=tuple(first.tokens),
        equal=divergence is None or (comparable and divergence.excused),
        identical=divergence is None, model_calls=first.model_calls,
        tokens_per_call=len(first.tokens) / max(1, first.model_calls),
        seconds=_median_seconds(runs[name]), ratio_to_plain=_speed(runs[name]) / _speed(runs[task.reference]),
        ratio_to_peer=None if peer is None else _speed(runs[name]) / _speed(runs[peer]), note=note, trace=first.trace,
    )  # fmt: skip


def _comparable(task: _Task, name: str) -> bool:
    """Whether the method says that its tokens, or their law, are those of the reference."""
    recipe = Recipe.of(name, task.options.get(name))
    if task.reference == PLAIN:
        return recipe.lossless
    return all(EQUALS_STATIC in card.claims for card in recipe.cards()) and not _other_schedule(task, name)


def _other_schedule(task: _Task, name: str) -> dict[str, Any]:
    """The options by which a method that equals a static schedule equals another one than the reference's."""
    own, static = _values(task, name), _values(task, task.reference)
    return {option: value for option, value in own.items() if option in static and static[option] != value}


def _values(task: _Task, name: str) -> dict[str, Any]:
    recipe = Recipe.of(name, task.options.get(name))
    return {option.name: option.default for card in recipe.cards() for option in card.options} | {
        option: value for _, option, value in recipe.options
    }


def _own_law(task: _Task, name: str) -> str:
    if task.reference == PLAIN:
        return "its law is another than plain decoding's"
    if any(EQUALS_STATIC not in card.claims for card in Recipe.of(name).cards()):
        return f"it fills other slots at once than {task.reference} does"
    other = ", ".join(f"{option}={value}" for option, value in _other_schedule(task, name).items())
    return f"it equals {task.reference} with {other}; give {task.reference} the same options"


def _judge(task: _Task, plain: _Run, other: _Run) -> Divergence | None:
    if task.reference != PLAIN:
        index = first_divergence(plain.tokens, other.tokens)
        left, right = (None if index is None or index >= len(run.tokens) else run.tokens[index] for run in (plain, other))
        # Noise is measured claim by claim; canvases are held to the letter.
        return None if index is None else Divergence(index, left, right, math.inf, 0.0, other.width, exact=True)
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
