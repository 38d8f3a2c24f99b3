"""DISCO: each rule by hand, the opposites of what keeps it lossless, and transformers' own dynamic speculation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import treewright
from treewright.core.build import build_parts
from treewright.core.claims import ABSENT
from treewright.core.errors import CapabilityError, CompositionError, InputError
from treewright.core.recipe import Recipe
from treewright.core.registry import entry, methods
from treewright.core.request import Sampling
from treewright.core.roles import Outcome, Parts, Verdict
from treewright.methods.speculate.disco import Config, Disco, parts, roc_threshold
from treewright.models.tables import Table
from treewright.parts.control.classifier import Classifier
from treewright.parts.control.drafted import Notes
from treewright.parts.control.switch import Switch
from treewright.parts.propose.draft_model import DraftChain, DraftTree, ask_model, full_tree
from treewright.parts.verify.sample_then_match import SampleThenMatch
from treewright.testing.bench import SETTINGS, Bench, parts_of
from treewright.testing.definition import plain_law
from treewright.testing.enumerate import exact_law, total_variation
from treewright.testing.reports import Coverage

TARGET = Table(6, seed=3, sharpness=2.0)
DRAFT = Table(6, seed=4, like=TARGET, likeness=0.7, sharpness=2.0)
PROMPTS = [(1, 2, 3), (0,), (5, 4)]


def drafting(tokens: int, options: Mapping[str, Any]) -> Parts:
    """Speculative sampling under this method's control."""
    module = entry("speculative_sampling").load()
    return module.parts(module.Config(tokens=tokens)).join(parts(Config(**options)))


def distance(make: Callable[[], Parts]) -> tuple[float, Coverage]:
    """From the definition, under a constraint and penalties; and what ran."""
    case, coverage = Bench(make, ("draft",)).case(SETTINGS[0]), Coverage()
    return total_variation(exact_law(case, coverage=coverage), plain_law(case)), coverage


RULES: list[dict[str, Any]] = [
    {"threshold": 0.5}, {"rule": "heuristic", "tokens": 1}, {"rule": "adaptive", "threshold": 0.5}, {"rule": "classifier"},
]  # fmt: skip


@pytest.mark.parametrize("options", RULES, ids=str)
def test_the_law_holds_for_a_drafter_under_control(options):
    found, ran = distance(lambda: drafting(3, options))
    assert found < 1e-9
    assert 0 < ran.accepted < ran.proposed < distance(lambda: drafting(3, {"threshold": 0.0}))[1].proposed


class Dropping(Disco):
    """Makes the doubtful token absent, as if it had never been drafted."""

    def more(self, round, answers, parent, column):
        going = super().more(round, answers, parent, column)
        round.forest.token[~going, column] = ABSENT
        return going


def test_dropping_the_doubtful_token_is_biased():
    def dropping() -> Parts:
        return replace(drafting(3, {}), control=Dropping(Config(threshold=0.4)), observe=())

    assert distance(dropping)[0] > 0.01


def confidences(text: list[int], chain: list[int]) -> list[float]:
    """The draft's probability of each token of a chain after `text`, by numpy."""
    found = []
    for token in chain:
        weights = np.exp(DRAFT.logits(text) - DRAFT.logits(text).max())
        found.append(float(weights[token] / weights.sum()))
        text = [*text, token]
    return found


@pytest.mark.parametrize("temperature", [0.0, 0.6])
def test_drafting_stops_behind_the_first_doubtful_token(temperature, decode):
    settings = dict(max_new_tokens=30, sampling=Sampling(temperature))
    decoded = decode(TARGET, drafting(20, {"threshold": 0.6, "most": 7}), PROMPTS, draft=DRAFT, **settings)
    lengths = set()
    for number, prompt in enumerate(PROMPTS):
        text = list(prompt)
        for step in decoded.trace(number).steps:
            chain = [token for token in step.token[1:] if token != ABSENT]
            sure = confidences(text, chain)
            assert all(one >= 0.6 for one in sure[:-1])
            room = len(prompt) + 30 - len(text) - 1
            assert len(chain) == min(7, room) or sure[-1] < 0.6
            lengths.add(len(chain))
            text += step.emitted
    assert len(lengths) > 3


@pytest.mark.parametrize("rule", ["threshold", "classifier"])
def test_threshold_zero_is_the_fixed_length(rule, decode):
    settings = dict(max_new_tokens=20, sampling=Sampling(1.0), seed=5)
    controlled = decode(TARGET, drafting(4, {"threshold": 0.0, "rule": rule}), PROMPTS, draft=DRAFT, **settings)
    fixed = decode(TARGET, "speculative_sampling", PROMPTS, {"tokens": 4}, DRAFT, **settings)
    for number in range(len(PROMPTS)):
        assert controlled.trace(number).steps == fixed.trace(number).steps


class Oracle:
    """Drafts until the target's own greedy text leaves the draft's, which nobody could know."""

    def claims(self, round):
        return 21

    def more(self, round, answers, parent, column):
        found = []
        for row in range(round.rows):
            path = round.forest.path_tokens(row, column)
            text = round.text.of(row).tolist()
            found.append(all(TARGET.logits([*text, *path[:i]]).argmax() == path[i] for i in range(len(path))))
        return np.array(found)


def test_nothing_needs_fewer_calls_than_the_oracle(decode):
    def calls(method: Parts) -> tuple[int, int]:
        asked = [call.model for call in decode(TARGET, method, [(1, 2, 3)], draft=DRAFT, max_new_tokens=80).trace().calls]
        return asked.count("target"), asked.count("draft")

    oracle = calls(replace(drafting(20, {}), control=Oracle(), observe=()))
    fixed = [calls(drafting(length, {"threshold": 0.0})) for length in (1, 3, 5, 9, 20)]
    for found in [*fixed, calls(drafting(20, {"threshold": 0.5})), calls(drafting(20, {"rule": "heuristic"}))]:
        assert found[0] >= oracle[0]
    # The longest draft needs no more target calls than the oracle, and many more draft calls.
    assert fixed[-1][0] == oracle[0] and fixed[-1][1] > 2 * oracle[1]


def test_heuristic_is_two_more_or_one_less(decode):
    decoded = decode(TARGET, drafting(20, {"rule": "heuristic", "tokens": 3, "most": 8}), PROMPTS, draft=DRAFT, max_new_tokens=60)
    lengths = set()
    for number in range(len(PROMPTS)):
        length, emitted = 3, 0
        for step in decoded.trace(number).steps:
            drafted = sum(token != ABSENT for token in step.token[1:])
            assert drafted == min(length, 60 - emitted - 1)
            length = min(8, length + 2) if len(step.accepted) == drafted else max(1, length - 1)
            emitted += len(step.emitted)
            lengths.add(drafted)
    assert {1, 3} < lengths


def lengths_of(decoded: Any, number: int = 0) -> list[int]:
    """Drafts of each round that has room for seven and the token after them."""
    lengths, room = [], len(decoded.tokens[number])
    for step in decoded.trace(number).steps:
        lengths += [sum(token != ABSENT for token in step.token[1:])] * (room >= 8)
        room -= len(step.emitted)
    return lengths


@pytest.mark.parametrize("rule", ["threshold", "adaptive", "classifier", "heuristic"])
def test_the_target_as_its_own_draft_model_has_the_longest_drafts(rule, decode, sure):
    """All are accepted, so no rule has a reason to stop before `most`; the heuristic climbs there by twos."""
    method = drafting(20, {"rule": rule, "most": 7, "tokens": 3, "every": 5})
    decoded = decode(sure(0), method, PROMPTS, draft=sure(0), max_new_tokens=60)
    for number in range(len(PROMPTS)):
        lengths = lengths_of(decoded, number)
        assert lengths == ([3, 5, 7] if rule == "heuristic" else [7] * 3) + [7] * (len(lengths) - 3)
        assert [len(step.accepted) for step in decoded.trace(number).steps][: len(lengths)] == lengths and len(lengths) > 4


WORST = {"threshold": [7] * 23, "adaptive": [7] * 23, "classifier": [7] * 6 + [1] * 17, "heuristic": [5, 4, 3, 2] + [1] * 19}


@pytest.mark.parametrize("rule", WORST)
def test_a_draft_model_that_is_sure_and_always_wrong(rule, decode, sure):
    """Drafts shrink to one where a rule learns. `threshold` asks the drafter alone, and `adaptive` awaits an accepted draft."""
    method = drafting(20, {"rule": rule, "most": 7, "tokens": 5, "every": 50})
    decoded = decode(sure(0), method, [(1, 2)], draft=sure(1), max_new_tokens=30)
    assert not any(step.accepted for step in decoded.trace().steps)
    assert lengths_of(decoded) == WORST[rule]


@pytest.mark.parametrize(("rule", "last"), [("classifier", 1), ("adaptive", 7)])
def test_a_draft_model_that_is_always_wrong_after_a_right_one(rule, last, decode, sure):
    """The classifier unlearns what it was taught. Scores of right and wrong drafts are the same, so ROC curves have one point."""
    memories: dict[Any, Any] = {}
    settings = dict(memories=memories, max_new_tokens=30)
    method = {"rule": rule, "most": 7, "window": 20, "every": 5}
    decode(sure(0), drafting(20, method), [(1, 2)], draft=sure(0), **settings)
    found = lengths_of(decode(sure(0), drafting(20, method), [(1, 2)], draft=sure(1), **settings))
    assert found[0] == 7 and found[-5:] == [last] * 5


def test_a_draft_model_that_becomes_right_is_trusted_again(decode, sure):
    memories: dict[Any, Any] = {}
    settings = dict(memories=memories, max_new_tokens=60)
    method = {"rule": "classifier", "most": 7, "window": 20, "every": 5}
    assert lengths_of(decode(sure(0), drafting(20, method), [(1, 2)], draft=sure(1), **settings))[-1] == 1
    found = lengths_of(decode(sure(0), drafting(20, method), [(1, 2)], draft=sure(0), **settings))
    assert found[0] == 1 and found[-2:] == [7, 7]


def cost(threshold: float, scores: np.ndarray, accepted: np.ndarray) -> float:
    on = scores >= threshold
    return (on & ~accepted).sum() / (~accepted).sum() + 3 * (~on & accepted).sum() / accepted.sum()


@pytest.mark.parametrize("seed", range(6))
def test_roc_threshold_is_the_cheapest_of_all(seed):
    random = np.random.default_rng(seed)
    scores = random.integers(0, 12, 40) / 12
    accepted = random.random(40) < scores
    found = roc_threshold(scores, accepted)
    assert found in scores
    assert cost(found, scores, accepted) == pytest.approx(min(cost(one, scores, accepted) for one in [*scores, np.inf]))
    assert all(cost(one, scores, accepted) > cost(found, scores, accepted) - 1e-12 for one in scores if one > found)


def outcome_of(round_of, chain: list[list[int]], paths: list[list[int]], emitted: list[list[int]], notes: Notes) -> Outcome:
    round = round_of([[7] for _ in chain])
    for place, column in enumerate(round.forest.grow(range(len(chain[0])), np.array(chain))):
        notes.add(column, np.array([[row, place] for row in range(len(chain))]))
    return Outcome(round, Verdict(paths, [0] * len(chain)), emitted)


def test_only_drafts_that_were_judged_are_learned_from(round_of):
    notes, chain = Notes(), [[1, 2, 3], [4, 5, 6], [7, 8, ABSENT], [1, 2, 3], [1, 2, 3]]
    outcome = outcome_of(round_of, chain, [[1], [1, 2, 3], [1, 2], [1], []], [[1, 9], [4, 5, 6, 0], [7, 8, 0], [1], [9]], notes)
    found = [(draft.row, int(draft.values[1]), draft.accepted) for draft in notes.judged(outcome)]
    # Row 3 was cut by a stop behind its first draft: nothing was refused there.
    assert found == [
        (0, 0, True), (0, 1, False), (1, 0, True), (1, 1, True), (1, 2, True), (2, 0, True), (2, 1, True), (3, 0, True),
        (4, 0, False),
    ]  # fmt: skip
    notes.begin()
    assert notes.place == 1 and notes.judged(outcome) == [], "a round in which nobody asked"


@pytest.mark.parametrize("rule", ["adaptive", "classifier"])
def test_what_is_learned_is_kept_and_can_be_frozen(rule, decode):
    memories: dict[Any, Any] = {}
    settings = dict(draft=DRAFT, memories=memories, max_new_tokens=40)
    decode(TARGET, drafting(6, {"rule": rule, "window": 30, "every": 5}), PROMPTS, **settings)
    learned = memories["disco", rule, 0.0]
    assert len(learned.accepted) == len(learned.features) == 30
    if rule == "adaptive":
        scores = np.stack(learned.features)[:, 0]
        assert learned.threshold == roc_threshold(scores, np.array(learned.accepted))
    before, classifier = list(learned.features), learned.classifier
    decode(TARGET, drafting(6, {"rule": rule, "window": 30, "learn": False}), PROMPTS, seed=3, **settings)
    assert all(one is other for one, other in zip(before, memories["disco", rule, 0.0].features, strict=True))
    assert memories["disco", rule, 0.0].classifier is classifier


def test_classifier_learns_what_decides():
    random = np.random.default_rng(0)
    features = np.stack([random.random(600), random.random(600) * 3, random.integers(1, 9, 600)], axis=-1)
    truth = 1 / (1 + np.exp(-(8 * features[:, 0] - 4 - 0.3 * (features[:, 2] - 4))))
    labels = (random.random(600) < truth).astype(float)
    model = Classifier.fit(features, labels, units=8, steps=200)
    base = labels.mean()
    assert model.loss(features, labels) < 0.8 * -(base * np.log(base) + (1 - base) * np.log(1 - base))
    assert np.abs(model(features) - truth).mean() < 0.06
    again = Classifier.fit(features, labels, units=8, steps=20, before=model)
    assert again.loss(features, labels) <= model.loss(features, labels) + 1e-3


def test_classifier_slopes_are_those_of_its_loss():
    random = np.random.default_rng(1)
    features, labels = random.normal(size=(12, 3)), (random.random(12) < 0.5).astype(float)
    model = Classifier.fit(features, labels, units=4, steps=3)
    for weight, slope in zip(model.weights, model._slopes(features, labels), strict=True):
        for place in np.ndindex(weight.shape):
            kept, losses = weight[place], []
            for change in (1e-6, -1e-6):
                weight[place] = kept + change
                losses.append(model.loss(features, labels))
            weight[place] = kept
            assert (losses[0] - losses[1]) / 2e-6 == pytest.approx(slope[place], abs=1e-7)


@pytest.mark.parametrize("control", ["disco", "specdec_pp"])
@pytest.mark.parametrize("drafter", ["token_recycling", "specinfer", "auto", "banditspec"])
def test_a_recipe_whose_drafter_never_asks_is_refused_when_it_is_built(control, drafter):
    with pytest.raises(CompositionError, match=f"'{control}' decides after .* '{drafter}' never asks it; join it to one"):
        build_parts(Recipe.of(f"{drafter}+{control}"))


@pytest.mark.parametrize("control", ["disco", "specdec_pp"])
@pytest.mark.parametrize("others", ["", "+dexperts", "+beam", "+best_of_n"])
def test_a_controller_without_a_drafter_is_refused_when_it_is_built(control, others):
    said = rf"^'{control}' says when to stop drafting and drafts nothing itself; .* such as speculative_sampling\+{control}$"
    with pytest.raises(CompositionError, match=said):
        build_parts(Recipe.of(f"{control}{others}"))
    assert build_parts(Recipe.of(f"speculative_sampling+{control}")).control is not None


def test_who_generates_with_a_controller_alone_is_told():
    with pytest.raises(CompositionError, match=r"give it with a drafter, such as speculative_sampling\+disco"):
        treewright.generate("default", "Once", "disco", max_new_tokens=2)


DRAFTERS = [card.name for card in methods() if {"propose", "verify"} <= set(card.roles) and "control" not in card.roles]


@pytest.mark.parametrize("drafter", DRAFTERS)
def test_what_says_that_it_asks_does(drafter, decode, monkeypatch):
    """Whoever is not refused asks in its first round, and whoever is would not have."""
    try:
        make, roles = parts_of(drafter, None)
        asks = make().asks
    except CapabilityError:
        return
    asked = []
    monkeypatch.setattr(Disco, "more", lambda self, round, *_: asked.append(round.number) or np.ones(round.rows, bool))
    controlled = make().join(parts(Config()))
    models = Bench(make, roles).models(TARGET.vocabulary, 1)
    with suppress(CompositionError):
        decode(models.pop("target"), controlled, [(1, 0, 1, 0, 1)], others=models, max_new_tokens=6)
    assert bool(asked) == asks


def test_whoever_drafts_by_a_chain_asks_without_saying_so():
    chain, tree = DraftChain(ask_model("draft"), 3), DraftTree(ask_model("draft"), full_tree([2, 1]))
    assert Parts(propose=chain).asks and Parts().join(Parts(propose=chain, claims=4)).asks
    assert not Parts(propose=tree).asks and not Parts().asks
    for arms, asks in (((chain, None), True), ((chain, tree), False)):
        switch = Switch({str(arm): Parts(propose=arm, verify=SampleThenMatch()) for arm in arms}, object())
        assert switch.parts().asks == asks, "what never drafts need not ask"


def test_a_drafter_that_never_asks_is_refused(decode):
    with pytest.raises(CompositionError, match="'disco' decides after each draft of a chain"):
        decode(
            TARGET, entry("prompt_lookup").load().parts(entry("prompt_lookup").load().Config()).join(parts(Config())), [(1, 1)]
        )


@pytest.mark.parametrize(
    "options", [{"threshold": 1.1}, {"most": 0}, {"tokens": 0}, {"every": 0}, {"window": 5}], ids=str
)  # fmt: skip
def test_bad_options(options):
    with pytest.raises(InputError, match=next(iter(options))):
        Config(**options)


def test_calls_are_those_of_transformers_dynamic_speculation():
    """Same rounds as assisted generation with a constant confidence threshold, on the bundled pair."""
    import torch

    target, draft = treewright.load("default", dtype="float32"), treewright.load("default-draft", dtype="float32")
    prompt, options = "Once upon a time there was", {"speculative_sampling.tokens": 20, "threshold": 0.4}
    ours = treewright.generate(
        target, prompt, "speculative_sampling+disco", options, {"draft": draft}, max_new_tokens=40, ignore_eos=True
    )
    counts = dict.fromkeys(("target", "draft"), 0)

    def count(name: str) -> Any:
        return lambda *_: counts.__setitem__(name, counts[name] + 1)

    hooks = [one.model.register_forward_hook(count(name)) for one, name in ((target, "target"), (draft, "draft"))]
    kept = draft.model.generation_config
    draft.model.generation_config = type(kept)(
        num_assistant_tokens=20, num_assistant_tokens_schedule="constant", assistant_confidence_threshold=0.4, eos_token_id=None
    )
    ids = torch.tensor([target.tokenizer(prompt)["input_ids"]])
    theirs = target.model.generate(ids, assistant_model=draft.model, max_new_tokens=40, do_sample=False, eos_token_id=None)
    draft.model.generation_config = kept
    for hook in hooks:
        hook.remove()
    assert theirs[0, ids.shape[1] :].tolist() == ours.tokens
    assert counts["target"] == len(ours.trace.steps)
    assert counts["draft"] == sum(call.model == "draft" and call.kind == "score" for call in ours.trace.calls)
