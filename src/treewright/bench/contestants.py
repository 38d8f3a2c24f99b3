"""What is raced: our methods, transformers' own generation on the same model object, and runtimes outside torch on the same
weights."""

from __future__ import annotations

import dataclasses
import time
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from treewright import api
from treewright.api import Loaded
from treewright.bench.depths import Depths
from treewright.core.build import build_parts
from treewright.core.card import Card
from treewright.core.errors import InputError, TreewrightError, UnknownOption, choices
from treewright.core.recipe import Recipe, read_method
from treewright.core.registry import methods
from treewright.core.result import Result
from treewright.interop import openvino_peer, peers
from treewright.interop.peers import PEERS, PeerSettings

TRANSFORMERS = "transformers"
"""The peer that all ratios are taken to: greedy at temperature 0, else sampling. The other peers take one prompt only."""
ASSISTED = "transformers:assisted"
PLAIN = "plain"
ALL = "all"
NODES = "nodes"
PLACEHOLDER = "placeholder"
"""The option of methods that ask about a token which they do not draft."""
NEEDS = openvino_peer.NEEDS
"""The exports that each peer outside torch reads."""


@dataclass(frozen=True, slots=True)
class Setting:
    """How every contestant decodes in one part of a run."""

    temperature: float
    rows: int
    max_new_tokens: int
    seed: int
    ignore_eos: bool


@dataclass(slots=True)
class Outcome:
    """What one contestant did with one unit (a prompt, or a batch of them).

    tokens: the new tokens of each row. seconds: wall time of the whole call. model_calls: target forwards; for our methods
    those after the prompts were read, for peers all. row_rounds: rounds summed over the rows. draft_calls: forwards that
    drafted, of other models or of a part of the target. These three are None where a peer does not tell. outside_seconds: time
    in the loop, outside every forward; drafting_seconds: in forwards that drafted; sizes: how many of the target's forwards had
    how many columns; depths: how far drafts were accepted; reading_seconds: in the target's forwards that read the prompts (all
    None for peers).
    """

    tokens: list[list[int]]
    seconds: float
    model_calls: int | None
    draft_calls: int | None
    row_rounds: int | None
    outside_seconds: float | None
    drafting_seconds: float | None = None
    sizes: dict[int, int] | None = None
    depths: Depths | None = None
    reading_seconds: float | None = None

    @property
    def new_tokens(self) -> int:
        return sum(map(len, self.tokens))


class Contestant(Protocol):
    """Decodes units. `options` and `method` go into the records; `peer` tells others from ours; `lossless`: its card
    claims plain decoding's law; `roles`: of the models it uses beside the target."""

    options: dict[str, Any]
    lossless: bool
    peer: bool

    @property
    def name(self) -> str: ...

    @property
    def method(self) -> str: ...

    @property
    def roles(self) -> set[str]: ...

    def supports(self, rows: int) -> bool: ...

    def forget(self) -> None:
        """Drops everything learned from earlier units."""

    def run(self, prompts: Sequence[Sequence[int]], setting: Setting, seed: int) -> Outcome: ...


@dataclass(slots=True)
class Ours:
    """A method of this library. What it learns is its own and lasts until `forget`."""

    name: str
    method: str
    options: dict[str, Any]
    loaded: Loaded
    models: dict[str, Loaded] = field(default_factory=dict)
    lossless: bool = True
    peer: bool = False

    def __post_init__(self) -> None:
        self.forget()

    @property
    def roles(self) -> set[str]:
        return set(self.models)

    def supports(self, rows: int) -> bool:
        return True

    def forget(self) -> None:
        self.loaded = dataclasses.replace(self.loaded, memories={})

    def check(self) -> None:
        """Raises what a first round would raise: a wrong option, a missing model, a capability the target lacks."""
        api.prepare(self.loaded, [[0]], self.method, self.options, self.models, {}).parts()

    def run(self, prompts: Sequence[Sequence[int]], setting: Setting, seed: int) -> Outcome:
        begin = time.perf_counter()
        results: list[Result] = api.generate(  # type: ignore[assignment]
            self.loaded, [list(prompt) for prompt in prompts], self.method, self.options, self.models,
            max_new_tokens=setting.max_new_tokens, temperature=setting.temperature, seed=seed,
            ignore_eos=setting.ignore_eos, batch_rows=len(prompts),
        )  # fmt: skip
        seconds = time.perf_counter() - begin
        # All rows enter together, so the trace of the row that ends last holds every call.
        last = max((result.trace for result in results), key=lambda trace: len(trace.calls))
        asked = [call for call in last.calls if call.kind in ("score", "sketch")]
        drafts = [call for call in asked if call.model != "target" or call.kind == "sketch"]
        sizes = Counter(call.columns for call in asked if call.model == "target" and call.kind == "score")
        reading = sum(call.seconds for call in last.calls if call.model == "target" and call.kind in ("encode", "prefill"))
        depths, aside = Depths(), placeholders(Recipe.of(self.method, self.options))
        for result in results:
            depths.add(result.trace.steps, aside)
        return Outcome(
            [result.tokens for result in results], seconds, last.model_calls, len(drafts), depths.rounds,
            last.seconds - last.seconds_in_model, sum(call.seconds for call in drafts), dict(sizes), depths, reading,
        )  # fmt: skip


@dataclass(slots=True)
class Peer:
    """Another library's decoding: transformers' `generate` on the same model, or an opened runtime on the same weights.
    `batches`: it takes more than one row; transformers' prompt lookup and assisted decoding do not."""

    name: str
    loaded: Loaded
    decode: peers.Peer
    batches: bool
    draft: Loaded | None = None
    options: dict[str, Any] = field(default_factory=dict)
    lossless: bool = True
    peer: bool = True

    @property
    def method(self) -> str:
        return self.name

    @property
    def roles(self) -> set[str]:
        return set() if self.draft is None else {"draft"}

    def supports(self, rows: int) -> bool:
        return rows == 1 or self.batches

    def forget(self) -> None:
        """Nothing to drop: it learns nothing."""

    def run(self, prompts: Sequence[Sequence[int]], setting: Setting, seed: int) -> Outcome:
        settings = PeerSettings(setting.max_new_tokens, setting.temperature, seed, setting.ignore_eos, self.draft)
        result = self.decode(self.loaded, prompts, settings)
        rounds = None if result.model_calls is None else result.model_calls * len(prompts)
        return Outcome(result.tokens, result.seconds, result.model_calls, result.draft_calls, rounds, None)


def peer_contestants(
    names: Sequence[str], loaded: Loaded, models: Mapping[str, Loaded], exports: Mapping[str, Path] | None = None
) -> list[Contestant]:
    """The peers called `names`; "all" stands for those that can run, "none" for no peer. `exports`: what runtimes outside
    torch read, by the names of `NEEDS`. Those are opened here. Raises InputError, and what opening raises."""
    exports = exports or {}
    unknown = [key for key in exports if key not in {need for needs in NEEDS.values() for need in needs}]
    if unknown:
        raise InputError(f"--export {unknown[0]}=...: {choices(unknown[0], dict.fromkeys(sum(NEEDS.values(), ())))}")
    wanted = [] if tuple(names) == ("none",) else list(names)
    if tuple(names) == (ALL,):
        wanted = [name for name in PEERS if name != ASSISTED or "draft" in models]
        wanted += [name for name, needs in NEEDS.items() if set(needs) <= set(exports)]
    for name in wanted:
        if name not in (*PEERS, *NEEDS):
            raise InputError(f"unknown peer '{name}'; {choices(name, [*PEERS, *NEEDS, ALL, 'none'])}")
        if name == ASSISTED and "draft" not in models:
            raise InputError(f"peer '{name}' needs a draft model; give --with draft=MODEL")
    unused = sorted(set(exports) - {need for name in wanted for need in NEEDS.get(name, ())})
    if unused:
        raise InputError(f"--export {unused[0]}=...: no peer of this run reads it; peers: {', '.join(wanted) or 'none'}")
    return [_peer(name, loaded, models, exports) for name in wanted]


def _peer(name: str, loaded: Loaded, models: Mapping[str, Loaded], exports: Mapping[str, Path]) -> Contestant:
    draft = models.get("draft") if name in (ASSISTED, openvino_peer.ASSISTED) else None
    if name in PEERS:
        return Peer(name, loaded, PEERS[name], name == TRANSFORMERS, draft)
    opened = openvino_peer.open_peer(name, loaded, exports, draft)
    return Peer(name, loaded, opened, True, draft, opened.options)


def drafting(roles: Collection[str]) -> list[str]:
    """The lossless methods that draft and need no model of another role; what "all" stands for, on a model that they fit."""
    return [card.name for card in methods() if card.lossless and "propose" in card.roles and set(card.models) <= set(roles)]


def check_methods(names: Sequence[str], settings: Sequence[tuple[str, Any]]) -> None:
    """Raises what reading and building the first of `--methods` that cannot be raises, in one sentence that names it. `settings`
    as for `our_contestants`. Of files that methods bring no more is read than what building needs."""
    if tuple(names) == (ALL,):
        return
    check_once(names)
    for name in names:
        if name == ALL:
            raise InputError(
                f"--methods {','.join(names)}: '{ALL}' stands for every lossless method that drafts and is given alone; give "
                f"--methods {ALL}, or names"
            )
        try:
            method, options = read_method(name)
        except InputError as error:
            raise InputError(f"--methods {error}") from error
        try:
            Recipe.of(method, options)
            build_parts(Recipe.of(method, dict(_taken(Recipe.of(method).cards(), settings)) | options))
        except TreewrightError as error:
            raise type(error)(f"--methods '{name}': {error}") from error


def check_once(names: Sequence[str]) -> None:
    """Raises InputError where a method stands twice; plain decoding, which is always there, may."""
    again = next((name for name, count in Counter(names).items() if count > 1 and name != PLAIN), None)
    if again is not None:
        raise InputError(f"method '{again}' stands twice in --methods; name it once, or give it other options")


def our_contestants(
    names: Sequence[str], settings: Sequence[tuple[str, Any]], nodes: int | None, loaded: Loaded, models: Mapping[str, Loaded]
) -> list[Contestant]:
    """Our methods, plain first. A name may carry options of its own, "token_recycling:nodes=15"; "all" stands for every
    lossless method that drafts, fits the model and whose other models are at hand. `settings`: [METHOD.]OPTION and value, for the
    methods that have the option. `nodes` sets the tree size of methods that have one and were not given it. Raises what the
    api raises."""
    if tuple(names) == (ALL,):
        names = [name for name in drafting(models) if api.fits(loaded, name)]
    check_once(names)
    chosen = [(name, *read_method(name)) for name in names if name != PLAIN]
    unused = [key for key, _ in settings]
    built: list[Contestant] = []
    for name, method, own in [(PLAIN, PLAIN, {}), *chosen]:
        cards = Recipe.of(method).cards()
        options = dict(_taken(cards, settings))
        unused = [key for key in unused if key not in options]
        options |= own
        if nodes is not None and _takes(cards, NODES) and not any(key.split(".")[-1] == NODES for key in options):
            options[NODES] = nodes
        recipe = Recipe.of(method, options)
        roles = {role: models[role] for role in recipe.roles() if role in models}
        contestant = Ours(name, method, options, loaded, roles, recipe.lossless)
        contestant.check()
        built.append(contestant)
    if unused:
        raise UnknownOption(f"no method in this run has the option '{unused[0]}'; methods: {', '.join(c.name for c in built)}")
    return built


def placeholders(recipe: Recipe) -> frozenset[int]:
    """The token ids that a recipe, or one that it chooses among, asks about without drafting them."""
    return frozenset(
        one.options_of(card.name).get(PLACEHOLDER, option.default)
        for one in (recipe, *recipe.arms())
        for card in one.cards()
        for option in card.options
        if option.name == PLACEHOLDER
    )


def _taken(cards: Sequence[Card], settings: Sequence[tuple[str, Any]]) -> list[tuple[str, Any]]:
    """Those of the settings that the methods have."""
    return [(key, value) for key, value in settings if _takes(cards, key)]


def _takes(cards: Sequence[Card], key: str) -> bool:
    owner, _, option = key.rpartition(".")
    return any(owner in ("", card.name) and any(known.name == option for known in card.options) for card in cards)
