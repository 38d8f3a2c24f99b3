"""SMC against enumeration: weights are unbiased with masks and without, resampled and not; and what is returned."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable
from dataclasses import replace

import numpy as np
import pytest

import treewright
from treewright import laws
from treewright.core.errors import CompositionError, InputError
from treewright.core.randomness import Keyed
from treewright.core.request import Request, Sampling
from treewright.core.roles import Parts, Round, TargetLaw, Verdict
from treewright.core.selection import Candidate
from treewright.engine.loop import Engine, Run
from treewright.methods.constrain.smc import Config, Particles, parts
from treewright.models.loading import load
from treewright.models.tables import Table
from treewright.parts.constrain.form import FixedTokens
from treewright.testing.bench import parts_of
from treewright.testing.weights import BlackBoxed


class Narrow:
    """After 0 only 3 may come, after 1 anything, after 2 nothing; 3 ends."""

    def mask(self, row: Hashable, continuation: np.ndarray) -> np.ndarray:
        allowed = np.ones(4, bool)
        if len(continuation):
            allowed[:] = continuation[-1] == 1
            allowed[3] = continuation[-1] in (0, 1)
        return allowed

    def allowed(self, row: Hashable, continuation: np.ndarray, token: int) -> bool:
        return bool(self.mask(row, continuation)[token])


TABLE = Table(4, seed=3)


def run(
    method: str, options: dict, tokens: int = 6, seed: int = 0, prompts: tuple = ((1, 0),), samples: int = 1,
    end: dict | None = None, form: tuple = (),
) -> Engine:  # fmt: skip
    """A run of particles on the table under the narrow constraint; a text ends at the token 3."""
    made = parts_of(method, options)[0]()
    fence = Narrow() if made.draw is None else BlackBoxed(Narrow())
    ends = {"stop_ids": (3,)} if end is None else end
    request = Request(prompts, tokens, sampling=Sampling(1.0), seed=seed, samples=samples, batch_rows=64, **ends)
    made = made.join(Parts(constrain=(fence,), form=form))
    engine = Engine(Run(request, {"target": TABLE}, made, decode=lambda ids: "".join(map(str, ids))))
    for _ in engine.run():
        pass
    return engine


def mass(prompt: tuple[int, ...], tokens: int, whole: bool) -> float:
    """The probability, as free text, of what the constraint allows within these tokens."""

    def beyond(new: tuple[int, ...]) -> float:
        if new and new[-1] == 3:
            return 1.0
        if len(new) == tokens:
            return 0.0 if whole else 1.0
        law = np.exp(TABLE.logits([*prompt, *new]))
        law /= law.sum()
        allowed = Narrow().mask((0, 0), np.array(new))
        return sum(law[token] * beyond((*new, token)) for token in range(4) if allowed[token])

    return beyond(())


@pytest.mark.parametrize(
    ("method", "options", "tokens", "outcomes"),
    [
        ("smc", {"particles": 3, "threshold": 1.0}, 3, 100), ("smc", {"particles": 2, "threshold": 0.0}, 3, 20),
        ("smc", {"particles": 2, "threshold": 1.0, "resampling": "multinomial"}, 3, 20),
        ("awrs+smc", {"particles": 2, "threshold": 1.0}, 2, 500), ("awrs+smc", {"particles": 1}, 3, 100),
    ],
)  # fmt: skip
def test_weights_are_unbiased(method, options, tokens, outcomes):
    assert laws.properly_weighted(method, options, tokens=tokens).total("outcomes") >= outcomes


class Forgetful(Particles):
    """Planted: copies keep the weight of what they are copied from, instead of the mean."""

    def verify(self, round: Round, law: TargetLaw) -> Verdict:
        before = np.array(round.log_weight)
        verdict = super().verify(round, law)
        if verdict.rows is not None:
            verdict.log_weight = [[float(before.max() - before[source]) - 0.1] for source in verdict.rows]
        return verdict


def test_the_law_sees_weights_that_are_not_the_mean(monkeypatch):
    monkeypatch.setattr("treewright.methods.constrain.smc.Particles", Forgetful)
    with pytest.raises(laws.LawBroken):
        laws.properly_weighted("smc", {"particles": 3, "threshold": 1.0})


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("method", ["smc", "awrs+smc"])
def test_the_mean_weight_is_the_mass_of_what_is_allowed(method, whole):
    """Over many seeds, within four standard errors; ragged prompts in one batch."""
    prompts = ((1, 0), (2, 2, 1))
    found = [run(method, {"particles": 4, "whole": whole}, tokens=4, seed=seed, prompts=prompts).finished for seed in range(60)]
    for number, prompt in enumerate(prompts):
        means = [np.mean([math.exp(row.log_weight) for key, row in rows.items() if key[0] == number]) for rows in found]
        error = np.std(means) / math.sqrt(len(means))
        assert error > 0 and abs(np.mean(means) - mass(prompt, 4, whole)) < 4 * error


def test_prompts_in_a_batch_are_decoded_as_they_are_alone():
    prompts = ((1, 0), (2, 2, 1))
    together = run("smc", {"particles": 4}, prompts=prompts).finished
    alone = run("smc", {"particles": 4}, prompts=prompts[:1]).finished
    assert {key: (row.tokens, row.log_weight) for key, row in together.items() if key[0] == 0} == {
        key: (row.tokens, row.log_weight) for key, row in alone.items()
    }


def test_one_particle_is_plain_sampling_under_the_mask():
    for seed in range(5):
        ours = run("smc", {"particles": 1}, seed=seed).finished[0, 0]
        assert ours.tokens == run("plain", {}, seed=seed).finished[0, 0].tokens


class Uneven:
    """A law whose draws weigh what the test says."""

    greedy = False

    def __init__(self, weights: list[float]) -> None:
        self._weights = weights

    def draw(self, row: int, column: int) -> tuple[int, float]:
        weight = self._weights[row]
        return (row % 4, math.log(weight)) if weight else (-1, -math.inf)


def first_verdict(weights: list[float], seed: int = 0, **options) -> Verdict:
    """The first verdict over particles whose first tokens weigh this much; 0 is a dead end."""
    seen: list[Verdict] = []

    class Watched(Particles):
        def verify(self, round: Round, law: TargetLaw) -> Verdict:
            seen.append(super().verify(round, Uneven(weights)))  # type: ignore[arg-type]
            return seen[-1]

    made = Parts(verify=Watched(Config(particles=len(weights), **options)), candidates=len(weights), together=True)
    engine = Engine(Run(Request(((1, 0),), 2, sampling=Sampling(1.0), seed=seed), {"target": TABLE}, made))
    rounds = engine.run()
    next(rounds)
    rounds.close()  # type: ignore[attr-defined]
    return seen[0]


@pytest.mark.parametrize("resampling", ["systematic", "multinomial"])
def test_rows_are_continued_as_often_as_their_share(resampling):
    """Through many seeds; systematic resampling is never off by a whole copy."""
    weights, seeds = [4.0, 1.0, 1.5, 1.5], 400
    verdicts = [first_verdict(weights, seed, threshold=1.0, resampling=resampling) for seed in range(seeds)]
    counts = np.array([np.bincount(verdict.rows or range(4), minlength=4) for verdict in verdicts])
    wanted = 4 * np.array(weights) / sum(weights)
    assert abs(counts.mean(0) - wanted).max() < 4 / math.sqrt(seeds)
    assert (abs(counts - wanted).max() < 1) == (resampling == "systematic")
    assert all(np.allclose(verdict.log_weight, math.log(2)) for verdict in verdicts)


def test_a_particle_that_cannot_go_on_is_replaced_unless_nothing_is_resampled():
    replaced = first_verdict([1.0, 0.0, 1.0, 1.0], threshold=0.01)
    assert replaced.rows is not None and 1 not in replaced.rows and not any(replaced.finished or [])
    assert np.allclose(replaced.log_weight, math.log(3 / 4))
    left = first_verdict([1.0, 0.0, 1.0, 1.0], threshold=0.0)
    assert left.rows is None and left.finished == [False, True, False, False]
    assert first_verdict([0.0, 0.0], threshold=0.5).finished == [True, True]


def candidates(weights: list[float], prompt: int) -> list[Candidate]:
    return [
        Candidate(number, [1], "", "stop", math.log(weight) if weight else -math.inf, prompt=prompt)
        for number, weight in enumerate(weights)
    ]


def test_the_particle_that_is_returned_is_drawn_by_its_weight():
    particles, found = Particles(Config()), Counter()
    for prompt in range(600):
        particles._randomness = Keyed(7)
        order = particles.select("", candidates([1, 0, 3, 2], prompt), {})
        assert sorted(order) == [0, 2, 3]
        found[order[0]] += 1
    assert [found[number] / 600 for number in (0, 2, 3)] == pytest.approx([1 / 6, 1 / 2, 1 / 3], abs=0.08)
    heaviest = Particles(Config(choose="heaviest"))
    assert heaviest.select("", candidates([1, 0, 3, 2], 0), {}) == [2, 3, 0]
    assert particles.select("", candidates([0, 0], 0), {}) == [0]


def ends_in_two(tokens: tuple[int, ...]) -> bool:
    """Odd places hold a 2."""
    return all(token == 2 for token in tokens[1::2])


def test_generate_reports_the_evidence_and_the_particles():
    constraint = treewright.check(ends_in_two, reads="tokens")
    settings = dict(temperature=1.0, max_new_tokens=6, constraint=constraint, seed=1)
    result = treewright.generate(load(TABLE), [1, 0], "awrs+smc", {"particles": 5}, n=5, **settings)
    weights = [sample.log_weight for sample in result.samples]
    assert len(weights) == 5 and result.log_weight == weights[0]
    assert result.log_evidence == pytest.approx(math.log(np.mean(np.exp(weights))))
    assert all(ends_in_two(tuple(sample.tokens)) for sample in result.samples) and result.trace.checks_per_token > 1
    assert treewright.generate(load(TABLE), [1, 0], "plain", temperature=1.0).log_evidence is None


def test_what_does_not_go_together_is_refused():
    settings = dict(constraint=treewright.check(ends_in_two, reads="tokens"), max_new_tokens=4)
    with pytest.raises(CompositionError, match="awrs"):
        treewright.generate(load(TABLE), [1], "smc", temperature=1.0, **settings)
    with pytest.raises(CompositionError, match=r"needs the weights of its draws.*looks"):
        treewright.generate(load(TABLE), [1], "awrs+smc", {"looks": 0}, temperature=1.0, **settings)
    with pytest.raises(CompositionError, match="single seat 'verify'"):
        treewright.generate(load(TABLE), [1], "smc+token_recycling", temperature=1.0)
    with pytest.raises(InputError, match="temperature is 0"):
        treewright.generate(load(TABLE), [1], "awrs+smc", **settings)


@pytest.mark.parametrize("options", [{"particles": 0}, {"threshold": 1.5}])
def test_bad_options_are_named(options):
    with pytest.raises(InputError, match=next(iter(options))):
        parts(replace(Config(), **options))


@pytest.mark.parametrize("options", [{"threshold": 1.0}, {"threshold": 1.0, "whole": True}])
@pytest.mark.parametrize("method", ["smc", "awrs+smc"])
def test_a_stop_string_ends_a_particle_as_an_end_token_does(method, options):
    """What has ended keeps its text and its weight while the others are resampled, and is whole at its last token too."""
    for seed in range(12):
        rows = [
            {key: (row.tokens, row.log_weight, row.finish) for key, row in engine.finished.items()}
            for end in ({"stop_ids": (3,)}, {"stop": ("3",)})
            for engine in [run(method, {"particles": 4, **options}, tokens=4, seed=seed, end=end)]
        ]
        assert rows[0] == rows[1]


FORM = FixedTokens(4, first=1, last=[None], banned=[(1, 1, 0)], start=(), length=[4])
"""Texts begin with 1, and 0 does not follow 1 1."""


def formed_masses(tokens: int) -> dict[tuple[int, ...], float]:
    """For every text that the constraint allows its probability under the law that the form leaves."""
    masses: dict[tuple[int, ...], float] = {}
    texts = [((), 1.0)]
    while texts:
        new, mass = texts.pop()
        if len(new) == tokens or new[-1:] == (3,):
            masses[new] = mass
            continue
        law = np.exp(TABLE.logits([1, 0, *new])) * ([new[-2:] != (1, 1), 1, 1, 1] if new else [0, 1, 0, 0])
        allowed = Narrow().mask((0, 0), np.array(new))
        texts += [((*new, token), mass * law[token] / law.sum()) for token in range(4) if allowed[token] and law[token] > 0]
    return masses


@pytest.mark.parametrize("method", ["smc", "awrs+smc"])
def test_the_model_s_own_form_is_part_of_the_law_and_no_weight(method):
    """Weights are masses of what the constraint leaves of the formed law: a form that fixes a token costs nothing."""
    expected = formed_masses(4)
    found = [
        {(n, tuple(row.tokens)): math.exp(row.log_weight) / 4 for n, row in enumerate(engine.finished.values())}
        for engine in (run(method, {"particles": 4, "threshold": 1.0}, 4, seed, form=(FORM,)) for seed in range(150))
    ]
    texts = {text for weights in found for (_, text), weight in weights.items() if weight > 0}
    assert len(texts) > 5 and texts <= set(expected)
    totals = [sum(weights.values()) for weights in found]
    error = np.std(totals) / math.sqrt(len(totals))
    assert error > 0 and abs(np.mean(totals) - sum(expected.values())) < 4 * error
    for text in sorted(texts, key=lambda text: -expected[text])[:4]:
        means = [sum(weight for (_, own), weight in weights.items() if own == text) for weights in found]
        assert abs(np.mean(means) - expected[text]) < 4 * np.std(means) / math.sqrt(len(means))
