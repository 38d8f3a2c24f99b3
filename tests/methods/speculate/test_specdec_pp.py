"""SpecDec++: its threshold against all other policies, and where drafting stops against heads computed by hand."""

from __future__ import annotations

import itertools
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import treewright
from treewright.core.claims import ABSENT
from treewright.core.errors import CapabilityError, CompositionError, InputError
from treewright.core.registry import entry
from treewright.core.request import Sampling
from treewright.core.roles import Parts
from treewright.methods.speculate.specdec_pp import PRIOR, Calibration, Config, goes_on, parts
from treewright.models.tables import HIDDEN_SIZE, Table
from treewright.parts.heads.acceptance_file import open_acceptance, save_acceptance
from treewright.parts.heads.acceptance_head import AcceptanceHead
from treewright.testing.bench import SETTINGS, Bench
from treewright.testing.definition import plain_law
from treewright.testing.enumerate import exact_law, total_variation

TARGET = Table(6, seed=3, sharpness=2.0)
DRAFT = Table(6, seed=4, like=TARGET, likeness=0.7, sharpness=2.0)
PROMPTS = [(1, 2, 3), (0,), (5, 4)]


def drafting(tokens: int, **options: Any) -> Parts:
    """Speculative sampling under this method's control."""
    module = entry("speculative_sampling").load()
    return module.parts(module.Config(tokens=tokens)).join(parts(Config(**options)))


@pytest.mark.parametrize("calibrate", [True, False])
@pytest.mark.parametrize("least", [1, 2])
def test_the_longest_and_the_shortest_drafts(calibrate, least, decode, sure):
    """With the target as its own draft model every draft is as long as allowed and accepted. With one that is sure and always
    wrong, drafts shrink to the least as soon as their like was refused twice, and not where nothing is learned."""

    def lengths(draft: Table) -> tuple[list[int], list[int]]:
        method = drafting(20, least=least, most=7, calibrate=calibrate)
        steps = decode(sure(0), method, [(1, 2)], draft=draft, max_new_tokens=60).trace().steps
        # The last rounds have less room.
        full = [step for step in steps if sum(len(one.emitted) for one in steps[: steps.index(step)]) < 50]
        return [sum(token != ABSENT for token in step.token[1:]) for step in full], [len(step.accepted) for step in full]

    drafted, accepted = lengths(sure(0))
    assert drafted == accepted == [7] * len(drafted) and len(drafted) > 5
    drafted, accepted = lengths(sure(1))
    assert not any(accepted) and drafted == ([7, 2, *[least] * (len(drafted) - 2)] if calibrate else [7] * len(drafted))


# The decision problem: each drafted token is of a kind that is drawn anew, and its kind says how likely it is accepted.
KINDS = {0.95: 0.6, 0.4: 0.4}
"""Probability of each acceptance."""


def ratio(going: dict[tuple[float, ...], bool], draft: float, check: float) -> float:
    """Expected cost of a round over its expected tokens, under a policy that says after each run of acceptances whether to draft
    on; by going through all runs."""
    cost, tokens, runs = check, 1.0, [((), 1.0)]
    while runs:
        run, chance = runs.pop()
        if run and not going.get(run, False):
            continue
        for kind, weight in KINDS.items():
            longer = (*run, kind)
            cost += chance * weight * draft
            tokens += chance * weight * float(np.prod(longer))
            runs.append((longer, chance * weight))
    return cost / tokens


def by_threshold(threshold: float, most: int) -> dict[tuple[float, ...], bool]:
    """What the method's own rule says after every run."""
    config = Config(threshold=threshold, least=1, most=most)
    runs = [run for count in range(1, most + 1) for run in itertools.product(KINDS, repeat=count)]
    return {run: bool(goes_on(np.array([np.prod(run)]), len(run), config)[0]) for run in runs}


@pytest.mark.parametrize(("draft", "check"), [(0.35, 1.0), (0.2, 1.0), (0.5, 1.0), (0.15, 0.4), (1.0, 1.0)])
def test_with_true_acceptances_a_threshold_is_the_best_of_all_policies(draft, check):
    """Every policy over drafts of at most 3 tokens, 2 ** 6 of them; and no threshold does better than the best."""
    nodes = [run for count in (1, 2) for run in itertools.product(KINDS, repeat=count)]
    best = min(
        ratio(dict(zip(nodes, answers, strict=True)), draft, check)
        for answers in itertools.product((False, True), repeat=len(nodes))
    )  # fmt: skip
    thresholds = {1 - float(np.prod(run)) for run in nodes} | {0.0, 1.0}
    found = min(ratio(by_threshold(threshold + 1e-12, 3), draft, check) for threshold in thresholds if threshold < 1)
    assert found == pytest.approx(best, abs=1e-12)


def best_ratio(draft: float, check: float, most: int) -> tuple[float, list[dict[float, bool]]]:
    """The best ratio by dynamic programming, and whether to draft on after k tokens at each probability that all of them are
    accepted. Dinkelbach: at the best ratio r, cost - r tokens has the minimum 0 over all policies."""
    found = check + draft
    while True:
        worth: dict[float, float] = {}
        answers: list[dict[float, bool]] = []
        for count in range(most - 1, -1, -1):
            products = {round(float(np.prod(run)), 12) for run in itertools.combinations_with_replacement(KINDS, count)}
            on = {
                one: draft + sum(
                    weight * (worth.get(round(one * kind, 12), 0.0) - found * one * kind) for kind, weight in KINDS.items()
                ) for one in products
            }  # fmt: skip
            answers.insert(0, {one: value < -1e-12 or count == 0 for one, value in on.items()})
            worth = {one: value if answers[0][one] else 0.0 for one, value in on.items()}
        going = {
            run: answers[count][round(float(np.prod(run)), 12)] for count in range(1, most)
            for run in itertools.product(KINDS, repeat=count)
        }  # fmt: skip
        better = ratio(going, draft, check)
        if better > found - 1e-12:
            return found, answers
        found = better


@pytest.mark.parametrize(("draft", "check"), [(0.35, 1.0), (0.2, 1.0)])
def test_with_true_acceptances_a_threshold_is_the_dynamic_programs_policy(draft, check):
    best, answers = best_ratio(draft, check, most=9)
    # In the program's own policy no run that is less sure goes on where a surer one of the same length stops.
    for known in answers[1:]:
        assert all(known[one] or not known[other] for one in known for other in known if other < one)
    # Where the limit on the length is out of reach, one threshold for all lengths does exactly as well.
    products = sorted({one for known in answers[1:] for one in known}, reverse=True)
    found = min(ratio(by_threshold(1 - one + 1e-9, 9), draft, check) for one in products)
    assert found == pytest.approx(best, abs=1e-9)


def test_bounds_of_the_length():
    config = Config(threshold=0.3, least=2, most=4)
    chance = np.array([0.71, 0.69])
    assert [goes_on(chance, drafted, config).tolist() for drafted in (1, 2, 3, 4)] == [
        [True, True], [True, False], [True, False], [False, False],
    ]  # fmt: skip
    # The bound itself is no doubt too many: drafting stops where 1 - product > h.
    assert goes_on(np.array([0.5]), 2, Config(threshold=0.5)).tolist() == [True]


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A head over the states of tables, with weights of some size."""
    torch.manual_seed(5)
    module = AcceptanceHead(HIDDEN_SIZE, 2)
    for weight in module.parameters():
        torch.nn.init.normal_(weight, std=1.5)
    folder = tmp_path_factory.mktemp("head")
    save_acceptance(module, folder, {}, torch.float64)
    return folder


def rated(head: Path, prefix: list[int]) -> float:
    """What the head says of the last token of `prefix`, by numpy."""
    weights = {name: value.numpy() for name, value in open_acceptance(str(head)).load(dtype=torch.float64).state_dict().items()}
    state = DRAFT.hidden(prefix)
    for block in range(2):
        z = weights[f"blocks.{block}.linear.weight"] @ state + weights[f"blocks.{block}.linear.bias"]
        state = state + z / (1 + np.exp(-z))
    refused, accepted = weights["output.weight"] @ state + weights["output.bias"]
    return 1 / (1 + np.exp(refused - accepted))


def test_a_head_that_is_written_again_is_read_again(tmp_path):
    model, module = treewright.load(TARGET), AcceptanceHead(HIDDEN_SIZE, 1)
    options, longest = {"specdec_pp.head": str(tmp_path)}, []
    for version, refused in enumerate((-30.0, 30.0)):
        for weight in module.parameters():
            torch.nn.init.zeros_(weight)
        module.output.bias.data[0] = refused
        save_acceptance(module, tmp_path, {})
        os.utime(tmp_path / "acceptance_head.safetensors", ns=(0, version))
        found = treewright.generate(
            model, [1, 2], "speculative_sampling+specdec_pp", options, {"draft": treewright.load(DRAFT)}, max_new_tokens=20
        )
        longest.append(max(len(step.token) - 1 for step in found.trace.steps))
    assert longest == [5, 2]


@pytest.mark.parametrize("lag", [True, False])
def test_drafting_stops_where_the_heads_product_says(lag, head, decode):
    method = drafting(20, head=str(head), threshold=0.5, most=6, lag=lag)
    decoded = decode(TARGET, method, PROMPTS, draft=DRAFT, max_new_tokens=30, sampling=Sampling(0.8))
    lengths = set()
    for number, prompt in enumerate(PROMPTS):
        text = list(prompt)
        for step in decoded.trace(number).steps:
            chain = [token for token in step.token[1:] if token != ABSENT]
            expected, product = 0, 1.0
            while expected < min(len(chain), 6):
                expected += 1
                newest = expected - lag
                product *= rated(head, [*text, *chain[:newest]]) if newest else 1.0
                if 1 - product > 0.5 and expected >= 2:
                    break
            room = len(prompt) + 30 - len(text) - 1
            assert len(chain) == expected
            assert len(chain) == min(6, room) or 1 - product > 0.5
            lengths.add(len(chain))
            text += step.emitted
    assert len(lengths) > 2


def test_without_a_lag_stopping_costs_a_call_of_the_draft(head, decode):
    settings = dict(draft=DRAFT, max_new_tokens=30)
    for lag in (True, False):
        decoded = decode(TARGET, drafting(20, head=str(head), threshold=0.5, most=4, lag=lag), PROMPTS[:1], **settings)
        calls = [call.model for call in decoded.trace().calls if call.kind == "score"]
        drafted = sum(len(step.token) - 1 for step in decoded.trace().steps)
        stopped = sum(len(step.token) - 1 > 0 for step in decoded.trace().steps)
        assert calls.count("draft") == drafted + (0 if lag else stopped)


def test_without_a_head_the_product_is_of_the_drafts_own_probabilities(decode):
    decoded = decode(TARGET, drafting(20, calibrate=False, threshold=0.4, least=1), PROMPTS, draft=DRAFT, max_new_tokens=30)
    lengths = set()
    for number, prompt in enumerate(PROMPTS):
        text = list(prompt)
        for step in decoded.trace(number).steps:
            chain, prefix, product = [token for token in step.token[1:] if token != ABSENT], list(text), 1.0
            for place, token in enumerate(chain):
                assert 1 - product <= 0.4
                weights = np.exp(DRAFT.logits(prefix))
                product *= weights[token] / weights.sum()
                prefix.append(token)
                if place == len(chain) - 1 and len(text) + len(chain) < len(prompt) + 29:
                    assert 1 - product > 0.4
            lengths.add(len(chain))
            text += step.emitted
    assert len(lengths) > 2


def test_calibration_is_the_share_accepted_with_the_word_itself_as_a_prior():
    known = Calibration()
    assert known(np.array([0.33, 1.0])).tolist() == [0.33, 1.0]
    for accepted in (True, False, False, True, True):
        known.add(0.35, accepted)
    assert known(np.array([0.31, 0.95])) == pytest.approx([(3 + PRIOR * 0.31) / (5 + PRIOR), 0.95])


def test_calibration_is_learned_and_kept_apart_by_temperature(decode):
    memories: dict[Any, Any] = {}
    for temperature in (0.0, 1.0):
        settings = dict(sampling=Sampling(temperature), max_new_tokens=40, memories=memories)
        decoded = decode(TARGET, drafting(6), PROMPTS, draft=DRAFT, **settings)
        known = memories["specdec_pp", temperature]
        assert known.accepted.sum() == decoded.accepted()
        assert known.judged.sum() > known.accepted.sum()


@pytest.mark.parametrize(
    "options", [{"calibrate": False}, {"least": 1}, {"head": "HEAD"}, {"head": "HEAD", "lag": True}], ids=str
)
def test_the_law_holds_for_a_drafter_under_control(options, head):
    options = {name: str(head) if value == "HEAD" else value for name, value in options.items()}
    case = Bench(lambda: drafting(3, threshold=0.4, **options), ("draft",)).case(SETTINGS[0])
    assert total_variation(exact_law(case), plain_law(case)) < 1e-9


def test_threshold_one_is_the_fixed_length(decode):
    settings = dict(max_new_tokens=20, sampling=Sampling(1.0), seed=5)
    controlled = decode(TARGET, drafting(4, threshold=1.0), PROMPTS, draft=DRAFT, **settings)
    fixed = decode(TARGET, "speculative_sampling", PROMPTS, {"tokens": 4}, DRAFT, **settings)
    assert [controlled.trace(n).steps for n in range(3)] == [fixed.trace(n).steps for n in range(3)]


def test_rows_of_a_batch_draft_as_alone(head, decode):
    method: dict[str, Any] = {"head": str(head), "threshold": 0.5}
    together = decode(TARGET, drafting(8, **method), PROMPTS, draft=DRAFT, max_new_tokens=25)
    for number, prompt in enumerate(PROMPTS):
        alone = decode(TARGET, drafting(8, **method), [prompt], draft=DRAFT, max_new_tokens=25)
        assert alone.tokens[0] == together.tokens[number]
        ours, theirs = (
            [[token for token in step.token if token != ABSENT] for step in run.steps]
            for run in (alone.trace(), together.trace(number))
        )
        assert ours == theirs


def test_the_bundled_head_drafts_for_the_bundled_pair():
    target, draft = treewright.load("default", dtype="float32"), treewright.load("default-draft", dtype="float32")
    options = {"speculative_sampling.tokens": 20, "head": "default-acceptance", "threshold": 0.8}
    prompt, settings = "SELECT name FROM", dict(max_new_tokens=40, ignore_eos=True)
    plain = treewright.generate(target, prompt, **settings)
    found = treewright.generate(target, prompt, "speculative_sampling+specdec_pp", options, {"draft": draft}, **settings)
    assert found.tokens == plain.tokens
    assert len({len(step.token) for step in found.trace.steps}) > 2
    assert found.trace.tokens_per_call > 1


def test_what_does_not_fit_is_refused(tmp_path, head, decode):
    with pytest.raises(InputError, match="head is 'nowhere', which is no folder"):
        parts(Config(head="nowhere"))
    save_acceptance(AcceptanceHead(7), tmp_path, {})
    with pytest.raises(CapabilityError, match=r"reads states of size 7 and this recipe's drafter has hidden size 4"):
        decode(TARGET, drafting(3, head=str(tmp_path)), [(1,)], draft=DRAFT)
    (tmp_path / "acceptance_head.safetensors").write_bytes(b"nothing")
    with pytest.raises(InputError, match="no whole safetensors file"):
        open_acceptance(str(tmp_path))
    lookup = entry("prompt_lookup").load()
    with pytest.raises(CompositionError, match="'specdec_pp' decides after each draft of a chain"):
        decode(TARGET, lookup.parts(lookup.Config()).join(parts(Config())), [(1, 1)])
    own = replace(drafting(3, head=str(head)), propose=_OwnChain())
    with pytest.raises(CompositionError, match=r"set specdec_pp\.lag to True"):
        decode(TARGET, own, [(1, 2)])


class _OwnChain:
    """A chain from the target itself."""

    def propose(self, round):
        from treewright.parts.propose.draft_model import DraftChain, ask_model

        DraftChain(ask_model("target"), 3).propose(round)


@pytest.mark.parametrize(
    "options", [{"threshold": -0.1}, {"threshold": 1.5}, {"least": 0}, {"most": 1}, {"head": ""}], ids=str
)  # fmt: skip
def test_bad_options(options):
    with pytest.raises(InputError, match=next(iter(options))):
        Config(**options)
