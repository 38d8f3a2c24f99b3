"""BanditSpec: the paper's formulas by hand, simulated bandits, and the law with arms of unlike verifiers."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import pytest

import treewright
from treewright.core.answers import Answers
from treewright.core.build import build_parts
from treewright.core.errors import CompositionError, InputError
from treewright.core.memories import Memories
from treewright.core.recipe import Recipe
from treewright.core.registry import entry
from treewright.core.request import Sampling
from treewright.core.roles import Outcome, Parts, Verdict
from treewright.methods.speculate.banditspec import Bandit, Config, parts
from treewright.models.tables import Table
from treewright.parts.control.bandits import Pulls, confidence_radius, exp3_law, loss_estimate, ucb_arm
from treewright.parts.control.switch import Switch
from treewright.parts.verify.sample_then_match import SampleThenMatch
from treewright.testing.bench import SETTINGS, Bench
from treewright.testing.definition import plain_law
from treewright.testing.enumerate import exact_law, total_variation
from treewright.testing.reports import Coverage

TARGET = Table(6, seed=3, sharpness=2.0)
DRAFT = Table(6, seed=4, like=TARGET, likeness=0.7, sharpness=2.0)
PROMPTS = [(1, 2, 3), (0,), (5, 4)]
MIXED = ("plain", "prompt_lookup:tokens=3", "token_recycling:nodes=4", "speculative_sampling:tokens=3")


def history(arms: int, seen: list[tuple[int, float]]) -> Pulls:
    pulls = Pulls(arms)
    for arm, reward in seen:
        pulls.add(arm, reward)
    return pulls


SCRIPT = [(0, 2), (1, 5), (2, 1), (1, 3), (1, 6), (0, 1), (2, 2), (1, 1), (0, 4), (2, 3), (1, 2)]
"""(arm, tokens of the round), with drafts of at most 5 tokens."""


@pytest.mark.parametrize("exploration", [0.0, 0.03, 1.0])
def test_ucb_is_the_papers_formula_in_tokens(exploration):
    longest, delta = 5, 0.05
    for count in range(len(SCRIPT) + 1):
        seen, values = SCRIPT[:count], []
        for arm in range(3):
            rewards = [tokens for one, tokens in seen if one == arm]
            n = len(rewards)
            inside = math.log(3 * (count + 1) ** 2 * math.sqrt(1 + n) / delta)
            radius = longest / 2 * math.sqrt((1 + n) / n**2 * (1 + 2 * inside)) if n else math.inf
            values.append(sum(rewards) / n + exploration * radius if n else math.inf)
        pulls = history(3, [(arm, (tokens - 1) / longest) for arm, tokens in seen])
        assert ucb_arm(pulls, 1.0, exploration, delta) == values.index(max(values))
        if count > 3:
            scaled = 1 + longest * (pulls.reward / pulls.count + exploration * confidence_radius(pulls.count, count + 1, delta))
            assert scaled.tolist() == pytest.approx(values)


def test_exp3_estimates_every_arms_loss_without_bias():
    rewards, pulls = np.array([0.2, 0.9, 0.5]), Pulls(3)
    pulls.loss[:] = [3.0, 1.0, 0.2]
    law = exp3_law(pulls)
    mean = sum(law[arm] * loss_estimate(3, arm, rewards[arm], law) for arm in range(3))
    assert mean == pytest.approx(1 - rewards)


def simulated(policy: str, rounds: int, seed: int, chances: tuple[float, ...] = (0.3, 0.5, 0.9), longest: int = 4) -> np.ndarray:
    """Which arm was pulled, [rounds]. An arm's tokens are 1 + the accepted of `longest` drafts, each with its chance."""
    random, pulls, pulled = np.random.default_rng(seed), Pulls(len(chances)), []
    for _ in range(rounds):
        law = exp3_law(pulls)
        arm = ucb_arm(pulls, 1.0, 1.0, 0.1) if policy == "ucb" else int(random.choice(len(chances), p=law))
        accepted = next((count for count in range(longest) if random.random() >= chances[arm]), longest)
        if policy == "exp3":
            pulls.loss += loss_estimate(len(chances), arm, accepted / longest, law)
        pulls.add(arm, accepted / longest)
        pulled.append(arm)
    return np.array(pulled)


@pytest.mark.parametrize("policy", ["ucb", "exp3"])
def test_the_better_arm_is_pulled_more_and_more_and_regret_grows_slower_than_time(policy):
    means = [sum(chance**count for count in range(1, 5)) / 4 for chance in (0.3, 0.5, 0.9)]
    gaps = np.array(means)[2] - np.array(means)
    runs = np.array([simulated(policy, 4000, seed) for seed in range(3)])
    share = [float((runs[:, part] == 2).mean()) for part in (slice(60), slice(500, 1000), slice(3000, 4000))]
    assert share == sorted(share) and share[0] < 0.8
    assert share[-1] > (0.99 if policy == "ucb" else 0.95)
    regret = gaps[runs].cumsum(axis=1).mean(axis=0)
    # Linear regret would be 16 times as large.
    assert regret[3999] < (4 if policy == "ucb" else 8) * regret[249]


def outcome_of(round: Any, emitted: list[int], seconds: float = 0.0) -> Outcome:
    return Outcome(round, Verdict([[]], [0]), [[7] * count for count in emitted], seconds)


def test_rewards_are_tokens_of_a_row_between_nothing_gained_and_all(round_of):
    bandit, round = Bandit(Config(longest=4), ("a", "b")), round_of([[1], [2]])
    for emitted, reward in (([1, 1], 0.0), ([5, 5], 4.0), ([2, 3], 1.5), ([9, 9], 4.0), ([0, 1], 0.0)):
        before = bandit.pulls(round).reward[1]
        bandit.learn(1, outcome_of(round, emitted))
        assert bandit.pulls(round).reward[1] - before == pytest.approx(reward)
    assert bandit.pulls(round).count.tolist() == [0, 5] and bandit.pulls(round).scale == 4


def test_the_longest_acceptance_of_a_row_so_far_is_all_there_can_be(round_of):
    bandit, round = Bandit(Config(), ("a", "b")), round_of([[1], [2]])
    for emitted, longest in (([1, 1], 1), ([0, 0], 1), ([2, 1], 1), ([1, 4], 3), ([3, 3], 3), ([7, 2], 6)):
        bandit.learn(1, outcome_of(round, emitted))
        assert bandit.pulls(round).scale == longest
    assert bandit.pulls(round).reward.tolist() == [0, 0 + 0 + 0.5 + 1.5 + 2 + 3.5]


@pytest.mark.parametrize("longest", [0, 5])
def test_choices_are_the_papers_with_one_longest_acceptance_for_all_rounds(longest, round_of):
    """Its formulas in tokens, computed anew before every choice with the L that is known by then."""
    ucb = Bandit(Config(longest=longest, delta=0.05), ("a", "b", "c"))
    exp3 = Bandit(Config(longest=longest, policy="exp3"), ("a", "b", "c"))
    round, laws = round_of([[1]]), []
    for count in range(len(SCRIPT) + 1):
        seen, known = SCRIPT[:count], longest or max([1, *(tokens - 1 for _, tokens in SCRIPT[:count])])
        values, losses = [], [0.0] * 3
        for arm in range(3):
            rewards = [tokens for one, tokens in seen if one == arm]
            n = len(rewards)
            inside = math.log(3 * (count + 1) ** 2 * math.sqrt(1 + n) / 0.05)
            values.append(sum(rewards) / n + known / 2 * math.sqrt((1 + n) / n**2 * (1 + 2 * inside)) if n else math.inf)
        for (arm, tokens), law in zip(seen, laws, strict=True):
            losses[arm] += (known + 1 - tokens) / (known * law[arm])
        eta = math.sqrt(math.log(3) / ((count + 1) * 3))
        weights = [math.exp(-eta * loss) for loss in losses]
        assert ucb.choose(round) == values.index(max(values))
        exp3.choose(round)
        assert exp3._law.tolist() == pytest.approx([weight / sum(weights) for weight in weights])
        laws.append(exp3._law)
        if count < len(SCRIPT):
            arm, tokens = SCRIPT[count]
            for bandit in (ucb, exp3):
                bandit.learn(arm, outcome_of(round, [tokens]))


def test_a_wide_tree_earns_as_much_as_a_chain_that_gains_the_same(decode):
    """15 claims that are 3 deep: what counts is the depth that was accepted, not the claims."""
    memories: dict[Any, Any] = {}
    method = parts(Config(arms=("plain", "specinfer:expansion=[3,2,1]")))
    decode(TARGET, method, PROMPTS[:1], draft=TARGET, max_new_tokens=200, memories=memories)
    pulls = next(value for key, value in memories.items() if key[0] == "banditspec")
    assert pulls.scale == 3 and pulls.count[1] > 5 * pulls.count[0]
    assert pulls.reward[1] / pulls.count[1] > 2.9


@pytest.mark.parametrize("policy", ["ucb", "exp3"])
def test_speed_passes_over_the_first_round_and_scales_by_the_fastest(policy, round_of):
    bandit, round = Bandit(Config(reward="speed", policy=policy), ("a", "b")), round_of([[1], [2]])
    for arm, emitted, seconds in ((0, [4, 4], 9.0), (1, [1, 1], 9.0), (0, [4, 4], 0.5), (1, [1, 1], 0.25)):
        bandit.learn(arm, outcome_of(round, emitted, seconds))
    pulls = bandit.pulls(round)
    assert pulls.reward.tolist() == [16.0, 8.0] and pulls.count.tolist() == [1, 1] and pulls.scale == 16.0
    assert pulls.loss.tolist() == ([0, 0] if policy == "ucb" else [0, 0.5])
    if policy == "ucb":
        assert bandit.choose(round) == 0


@pytest.mark.parametrize(
    "options",
    [
        {"arms": MIXED, "policy": "exp3"}, {"arms": MIXED, "exploration": 0.1},
        {"arms": ("jacobi:block=2", "lookahead:window=1:level=2:guesses=1", "specinfer:expansion=[2,1]"), "policy": "exp3"},
    ],
    ids=["exp3", "ucb", "trees"],
)  # fmt: skip
@pytest.mark.parametrize("setting", [SETTINGS[0], SETTINGS[2]], ids=lambda setting: setting.name)
def test_the_law_holds_whichever_arms_take_turns(options, setting):
    case, coverage = Bench(lambda: parts(Config(**options)), ("draft",)).case(setting), Coverage()
    assert total_variation(exact_law(case, coverage=coverage), plain_law(case)) < 1e-9
    assert coverage.accepted


def test_arms_take_turns_and_batches_are_plain_text(decode, watcher):
    memories: dict[Any, Any] = {}
    watch = watcher(lambda outcome: outcome.round.forest.columns)
    method = parts(Config(arms=MIXED, policy="exp3"))
    settings = dict(max_new_tokens=40, memories=memories)
    decoded = decode(TARGET, method, PROMPTS, draft=DRAFT, observers=[watch], **settings)
    assert decoded.tokens == decode(TARGET, "plain", PROMPTS, max_new_tokens=40).tokens
    assert len(set(watch.seen)) >= 3
    pulls = next(value for key, value in memories.items() if key[0] == "banditspec")
    assert pulls.rounds == len(watch.seen) and (pulls.count > 0).all()
    before = pulls.rounds
    decode(TARGET, parts(Config(arms=MIXED, policy="exp3")), PROMPTS[:1], draft=DRAFT, **settings)
    assert pulls.rounds > before, "what was learned is kept for the next run"


def test_one_arm_is_that_recipe(decode):
    settings = dict(draft=DRAFT, max_new_tokens=25, sampling=Sampling(1.0), seed=2)
    ours = decode(TARGET, parts(Config(arms=("speculative_sampling:tokens=4",), policy="exp3")), PROMPTS, **settings)
    theirs = decode(TARGET, "speculative_sampling", PROMPTS, {"tokens": 4}, **settings)
    assert [ours.trace(row).steps for row in range(3)] == [theirs.trace(row).steps for row in range(3)]


def test_ucb_leans_to_the_arm_that_gains_more(decode):
    memories: dict[Any, Any] = {}
    method = parts(Config(arms=("plain", "speculative_sampling:tokens=4"), exploration=0.2))
    decode(TARGET, method, PROMPTS, draft=TARGET, max_new_tokens=300, memories=memories)
    pulls = next(value for key, value in memories.items() if key[0] == "banditspec")
    assert pulls.count[1] > 5 * pulls.count[0]


class Turns:
    """Plays the arms in turn."""

    def __init__(self, arms: int) -> None:
        self.arms, self.heard = arms, []

    def choose(self, round: Any) -> int:
        return len(self.heard) % self.arms

    def learn(self, arm: int, outcome: Outcome) -> None:
        self.heard.append(arm)


class Probe(SampleThenMatch):
    """A drafter, verifier and observer that notes who was asked, and counts under one key."""

    def __init__(self, prompt_top: int, name: str, log: list[Any]) -> None:
        self.prompt_top, self.name, self.log = prompt_top, name, log

    def propose(self, round):
        assert round.proposed_by is self
        self.log.append((self.name, "propose", round.claims))

    def verify(self, round, law):
        self.log.append((self.name, "verify"))
        return super().verify(round, law)

    def read_prompts(self, round, prompts, top):
        self.log.append((self.name, "read", top.shape[-1]))

    def observe(self, outcome):
        for memory in (outcome.round.memories.model("key", list), outcome.round.memories.row((0, 0), "key", list)):
            memory.append(self.name)
            assert set(memory) == {self.name}
        self.log.append((self.name, "observe", outcome.round.proposed_by.name))


def test_the_chosen_arm_proposes_and_verifies_and_all_arms_hear(decode):
    log: list[Any] = []
    probes = [Probe(top, name, log) for top, name in ((2, "a"), (0, "b"), (4, "c"))]
    arms = {one.name: Parts(one, one, (one,), claims=claims) for one, claims in zip(probes, (3, 9, 5), strict=True)}
    chooser = Turns(3)
    method = Switch(arms, chooser).parts()
    assert method.claims == 9 and method.observe[0].prompt_top == 4
    decode(TARGET, method, [(1, 2)], max_new_tokens=5)
    assert log[:2] == [("a", "read", 2), ("c", "read", 4)]
    rounds = [[("a", "propose", 3), ("a", "verify")], [("b", "propose", 9), ("b", "verify")]]
    heard = [[(one, "observe", whose) for one in "abc"] for whose in "ab"]
    assert log[2:12] == [*rounds[0], *heard[0], *rounds[1], *heard[1]]
    assert chooser.heard == [0, 1, 2, 0, 1]


@pytest.mark.parametrize(
    ("method", "lessons"),
    [("sequoia", lambda kept: kept["sequoia"].acceptance.seen), ("auto", lambda kept: kept["auto"]._rounds)],
)  # fmt: skip
def test_an_arm_learns_acceptance_and_costs_from_its_own_rounds_alone(method, lessons, decode):
    """Others draft in all rounds but the first, in which the arm knows nothing."""

    class Once(Turns):
        def choose(self, round):
            return 0 if not self.heard else 1

    def learned(tokens):
        memories: dict[Any, Any] = {}
        arms = {name: build_parts(Recipe.of(name)) for name in (method, "specinfer")}
        decode(TARGET, Switch(arms, Once(2)).parts(), [(1, 2)], draft=DRAFT, memories=memories, max_new_tokens=tokens)
        kept = {key[0]: value for (_, key), value in memories.items() if key[0] == "sequoia" or key[:2] == ("auto", "cost")}
        return lessons(kept)

    assert learned(60) == learned(20)


def test_memory_within_is_kept_apart_and_forked_along():
    lasting: dict[Any, Any] = {}
    memories = Memories(lasting)
    one, other = memories.within("a"), memories.within("b")
    assert one.model("k", list) is memories.within("a").model("k", list) is not other.model("k", list)
    one.row((0, 0), "k", list).append(1)
    memories.fork([(0, 1)], [(0, 0)])
    assert one.row((0, 1), "k", list) == [1] and other.row((0, 1), "k", list) == []
    memories.forget((0, 0))
    assert one.row((0, 0), "k", list) == []


def test_arms_of_one_method_keep_their_own_memory(decode):
    arms = ("lookahead:level=3:window=2:guesses=2", "lookahead:level=4:window=3:guesses=2", "plain")
    decoded = decode(TARGET, parts(Config(arms=arms, policy="exp3")), PROMPTS, max_new_tokens=40)
    assert decoded.tokens == decode(TARGET, "plain", PROMPTS, max_new_tokens=40).tokens


@pytest.mark.parametrize(
    ("arm", "brings"),
    [
        ("dexperts", "the seat 'steer'"), ("speculative_sampling+disco", "the seat 'control'"), ("disco", "the seat 'control'"),
        ("beam", "the seat 'select'"), ("awrs", "the seat 'draw'"), ("best_first_beam", "the seat 'select'"),
    ],
)  # fmt: skip
def test_arms_that_bring_other_seats_are_refused(arm, brings):
    said = rf"^arm '{re.escape(arm)}' brings {brings}; an arm may bring propose, verify and observe alone"
    with pytest.raises(CompositionError, match=said):
        parts(Config(arms=("plain", arm)))


def test_arms_that_cannot_be_are_refused():
    with pytest.raises(CompositionError, match="stands twice"):
        parts(Config(arms=("jacobi:block=2", "GS-Jacobi:block=2")))
    with pytest.raises(CompositionError, match="brings a search's choice of claims"):
        Switch({"x": Parts(verify=SampleThenMatch(), bonus=False)}, Turns(1))
    with pytest.raises(CompositionError, match="brings rows of its own"):
        Switch({"x": Parts(verify=SampleThenMatch(), candidates=3)}, Turns(1))
    with pytest.raises(CompositionError, match="brings nothing that verifies"):
        Switch({"x": Parts()}, Turns(1))
    with pytest.raises(CompositionError, match="only at temperature 0"):
        arms = {str(greedy): Parts(verify=SampleThenMatch(), greedy=greedy) for greedy in (True, False)}
        Switch(arms, Turns(2)).parts()


def test_arms_say_which_models_are_needed():
    recipe = Recipe.of("banditspec", {"arms": list(MIXED)})
    assert recipe.roles() == {"draft"} and recipe.lossless
    with pytest.raises(InputError, match="needs a model for the role 'draft'"):
        treewright.generate("default", "Once", "banditspec", {"arms": list(MIXED)}, max_new_tokens=4)
    with pytest.raises(InputError, match="unknown method 'nope'"):
        treewright.generate("default", "Once", "banditspec", {"arms": ["nope"]}, max_new_tokens=4)
    with pytest.raises(InputError, match="arms"):
        treewright.generate("default", "Once", "banditspec", {"arms": "plain"}, max_new_tokens=4)


def test_a_drafter_of_the_bundled_pair_among_others():
    models, prompts = {"draft": treewright.load("default-draft", dtype="float32")}, ["Once upon a time", "SELECT name"]
    target, settings = treewright.load("default", dtype="float32"), dict(max_new_tokens=24, ignore_eos=True)
    options = {"arms": ["medusa", "speculative_sampling:tokens=3", "token_recycling:nodes=15"], "policy": "exp3"}
    found = treewright.generate(target, prompts, "banditspec", options, models, **settings)
    assert [one.tokens for one in found] == [one.tokens for one in treewright.generate(target, prompts, **settings)]
    assert found[0].trace.tokens_per_call > 1


@pytest.mark.parametrize(
    "options", [{"arms": ()}, {"longest": -1}, {"exploration": -0.5}, {"delta": 0.0}, {"delta": 1.0}], ids=str
)  # fmt: skip
def test_bad_options(options):
    with pytest.raises(InputError, match=next(iter(options))):
        Config(**options)


@pytest.mark.parametrize("name", ["jacobi", "lookahead", "lexical_units"])
def test_guesses_survive_rounds_that_others_drafted(name, round_of):
    """The forest of such a round has other columns than this drafter's."""
    import torch

    module = entry(name).load()
    options = {"verify": True, "confidence": 0.0} if name == "lexical_units" else {}
    drafter = module.parts(module.Config(**options)).propose
    round = round_of([[1, 2, 3], [4, 5, 6]], vocabulary=9)

    def seen(columns: int) -> Outcome:
        generator = torch.Generator().manual_seed(columns)
        round.answers["target"] = Answers(torch.rand(2, columns, 9, generator=generator))
        return Outcome(round, Verdict([[], []], [1, 2]), [[1], [2]])

    round.let_propose(drafter)
    assert round.forest.columns > 2
    drafter.observe(seen(round.forest.columns))
    round = round_of([[1, 2, 3, 1], [4, 5, 6, 2]], vocabulary=9)
    round.forest.grow([0], np.array([[7], [8]]))
    drafter.observe(seen(2))
    round = round_of([[1, 2, 3, 1], [4, 5, 6, 2]], vocabulary=9)
    round.let_propose(drafter)
    if name == "jacobi":
        assert round.forest.token[:, 1:].tolist() == [[1] * 3, [2] * 3], "as for a new row"
    if name == "lexical_units":
        assert (round.forest.token[:, 1:4] == -1).all(), "as for a new row"
    drafter.observe(seen(round.forest.columns))
