"""Laws: what methods, parts and model families claim, as functions anyone can call. A claim on a card is the name of one.

    from treewright import laws
    laws.lossless("their_method", options={"tokens": 2})

A law raises `LawBroken` with the numbers, or returns a small report. Costs seconds; needs no model but exact tables
(`tree_scoring` takes the model it is about).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from itertools import product
from typing import Any

from treewright.core.randomness import Keyed
from treewright.core.recipe import Recipe
from treewright.core.request import Sampling
from treewright.core.roles import Parts, Verifier
from treewright.engine.loop import Engine
from treewright.parts.verify.rejection import Rejection
from treewright.parts.verify.sample_then_match import SampleThenMatch
from treewright.testing import canvases
from treewright.testing.against_plain import TOLERANCE, drafts, greedy_cases, sampled
from treewright.testing.bench import CLAIMS, GREEDY, PROMPTS, SETTINGS, Bench, Fence, Setting, parts_of, warmed, with_drafter
from treewright.testing.definition import plain_law
from treewright.testing.drafters import LAWS, TreeDrafter
from treewright.testing.enumerate import Case, Tokens, exact_law, total_variation
from treewright.testing.limits import lossless_at_limit
from treewright.testing.reports import CaseReport, Coverage, LawBroken, LawReport
from treewright.testing.scoring import tree_scoring
from treewright.testing.search import equals_beam, equals_beam_in_groups, without_replacement
from treewright.testing.selection import selects
from treewright.testing.weights import BlackBoxed, DeadEnds, text_masses, weighted_masses

__all__ = [
    "Case", "LawBroken", "LawReport", "composable", "equals_beam", "equals_beam_in_groups", "equals_static", "exact_law",
    "exact_verifier", "fills_canvas", "follows_plain", "lazily_constrained", "lossless", "lossless_at_limit", "plain_law",
    "properly_weighted", "row_independent", "selects", "total_variation", "tree_scoring", "without_replacement",
]  # fmt: skip

LEARNER = "token_recycling"


def lossless(
    method: str,
    options: Mapping[str, Any] | None = None,
    *,
    alter: Callable[[Parts], Parts] = lambda parts: parts,
    engine: type[Engine] = Engine,
    claims: int = CLAIMS,
    seed: int = 1,
    most: int = 20_000,
) -> LawReport:
    """The method emits exactly the law of plain decoding.

    Run through the engine on exact tables, over a ragged batch of three rows, with a constraint and penalties, with
    top-k, top-p, min-p and typical sampling, stop ids, cold and warm memory, and at temperature 0: the joint law of a row's
    first tokens is enumerated, draft randomness included, and lies within total variation 1e-9 of the definition.

    method: a name, or names joined by '+'. options: its options; give some that draft a small tree (see `claims`, the
    columns a row may use in a round), because a draft that never fits is never tested. alter: changes the method's parts
    before each run. engine: the loop. most: outcomes at which to give up (ValueError).

    Raises LawBroken; CapabilityError where exact tables lack what the method needs. Cost: some hundred runs of a few
    rounds, 1 to 2 seconds.
    """
    make, roles = parts_of(method, options)
    bench = Bench(lambda: alter(make()), roles, claims=claims, engine=engine)
    report = _compare(method, bench, seed, most)
    drafting = any("propose" in card.roles for card in Recipe.of(with_drafter(method)).cards())
    if drafting and not (report.total("proposed") and report.total("accepted")):
        raise LawBroken(
            f"{method} proposed {report.total('proposed')} claims and had {report.total('accepted')} accepted, so nothing was "
            f"tested; give options whose draft fits into {claims} columns"
        )
    return report


def exact_verifier(make_verifier: Callable[[], Verifier], laws: tuple[str, ...] = LAWS, *, seed: int = 1) -> LawReport:
    """The verifier emits exactly the law of plain decoding, whatever law the drafts were drawn by.

    Drafts are trees of one and two levels: deterministic ("delta"), one draw ("single"), draws without replacement
    ("swor"), with replacement ("iid"), and a deterministic claim beside a drawn one ("mixed").
    """
    cases = []
    for law, widths in drafts(laws):

        def make(law: str = law, widths: tuple[int, ...] = widths) -> Parts:
            return Parts(propose=TreeDrafter(law, widths), verify=make_verifier(), claims=CLAIMS)

        bench = Bench(make, ("draft",))
        cases += sampled(f"{law} {widths}", bench, seed, 20_000, SETTINGS[:2])
    return LawReport("exact_verifier", type(make_verifier()).__name__, TOLERANCE, cases)


def composable(
    method: str, options: Mapping[str, Any] | None = None, *, laws: tuple[str, ...] = LAWS, seed: int = 1
) -> LawReport:
    """The method changes the target law and nothing else: under it, every draft law and verifier keeps the law that plain
    decoding has under it.

    Run as `exact_verifier` is, greedy and sampling, cold and warm, with sample-then-match over deterministic drafts and
    exact rejection over drawn ones, against the definition: logits, constraint, the method's steering,
    penalties. laws: the laws that drafts are drawn by. Raises LawBroken; CapabilityError where exact tables lack what the
    method needs. Cost: a second for each law of drafts.
    """
    make, roles = parts_of(method, options)
    cases = []
    for law, widths in drafts(laws):
        verifier = SampleThenMatch if law == "delta" else Rejection

        def drafted(law: str = law, widths: tuple[int, ...] = widths, verifier: type[Any] = verifier) -> Parts:
            return Parts(propose=TreeDrafter(law, widths), verify=verifier(), claims=CLAIMS).join(make())

        bench, subject = Bench(drafted, tuple(sorted({*roles, "draft"}))), f"{method}, {law} {widths}"
        cases += [*sampled(subject, bench, seed, 20_000, SETTINGS[:2]), *greedy_cases(subject, bench, seed)]
    return LawReport("composable", method, TOLERANCE, cases)


def row_independent(method: str, options: Mapping[str, Any] | None = None, *, seeds: int = 6) -> LawReport:
    """A row gets the same tokens in a ragged batch and alone, whatever its neighbours are and whatever ran before with the same
    model.

    Seen on exact tables over three rows at temperature 0 and 1 (where the method works there), with stops that end rows at
    different times, with and without a constraint and penalties (without, where the method refuses them), and of all answers
    where there are several. What judges or drives drafts of others is also joined to `LEARNER`, a drafter that learns from every
    row and run.
    Raises LawBroken; CapabilityError where exact tables lack what the method needs. Cost: seconds.
    """
    seats = {role for card in Recipe.of(method, options).cards() for role in card.roles}
    joined = {"accept", "drive"} & seats and not {"propose", "verify"} & seats
    cases = _rows_alone(method, options, seeds)
    cases += _rows_alone(f"{LEARNER}+{method}", options, seeds) if joined else []
    return LawReport("row_independent", method, 0.0, cases)


def _rows_alone(method: str, options: Mapping[str, Any] | None, seeds: int) -> list[CaseReport]:
    make, roles = parts_of(method, options)
    bare, greedy, cases = make().one_law, make().greedy, []
    for seed, temperature in product(range(seeds), (0.0, 1.0)):
        if greedy is not None and greedy != (temperature == 0):
            continue
        fenced = seed % 2 > 0 and not bare
        sampling, name = (
            replace(GREEDY if fenced else Sampling(), temperature=temperature),
            f"seed {seed}, temperature {temperature:g}",
        )
        case = Bench(make, roles).case(Setting(name, sampling, tokens=12, vocabulary=6, stop_ids=(5,), fenced=fenced), seed)
        learned = warmed(case).memories
        for row in range(len(PROMPTS)):
            _check_row(method, name, case, row, Keyed(seed), learned)
            cases.append(CaseReport(f"{name}, row {row}", 0.0, Coverage(outcomes=1)))
    return cases


def _check_row(method: str, name: str, case: Case, row: int, randomness: Keyed, learned: Mapping[Any, Any]) -> None:
    """Raises LawBroken where a row's text is another one in other company, or with the memory of another run, `learned`. Noise
    goes by the place in the batch, so texts are compared that stand in the same place."""
    prompt, others = PROMPTS[row], PROMPTS[row + 1 :] + PROMPTS[:row]
    strangers = tuple(other[::-1] + other for other in others)

    def answer(prompts: tuple[tuple[int, ...], ...], place: int, memories: Mapping[Any, Any]) -> list[Tokens]:
        played = replace(case, request=replace(case.request, prompts=prompts), row=place, memories=memories)
        return [tuple(one.tokens) for one in played.answers(randomness)[place]]

    alone, last = answer((prompt,), 0, {}), len(others)
    for company, found, wanted in (
        ("in a batch", answer((prompt, *others), 0, {}), alone),
        ("alone after another run", answer((prompt,), 0, learned), alone),
        ("behind other rows than before", answer((*strangers, prompt), last, {}), answer((*others, prompt), last, {})),
    ):
        if found != wanted:
            raise LawBroken(f"{method}, {name}: after prompt {prompt} it gives {wanted}, and {found} {company}")


def lazily_constrained(method: str, options: Mapping[str, Any] | None = None, *, seed: int = 1) -> LawReport:
    """The method holds a row to a constraint that has no mask, and emits exactly what the constraint leaves of each token's
    free law (after steering and warpers): that of plain decoding under a mask, where nothing steers and no warper cuts.

    Alone, and matched against deterministic drafts (chains and siblings); penalties, a nucleus, greedy; with dead ends.
    Raises LawBroken, and CompositionError for a method that asks for a mask. Cost: seconds.
    """
    make, roles = parts_of(method, options)
    cases = []
    for widths in ((), (2,), (1, 1)):

        def drafted(widths: tuple[int, ...] = widths) -> Parts:
            draft = Parts(propose=TreeDrafter("delta", widths)) if widths else Parts()
            return Parts(verify=SampleThenMatch(), claims=CLAIMS).join(draft).join(make())

        for setting in (SETTINGS[0], SETTINGS[2], replace(SETTINGS[2], sampling=GREEDY, tokens=8, row=0)):
            fence = DeadEnds(setting.vocabulary)

            def boxed(drafted: Callable[[], Parts] = drafted, fence: Fence = fence) -> Parts:
                return drafted().join(Parts(constrain=(BlackBoxed(fence),)))

            case = Bench(boxed, tuple(sorted({*roles, "draft"}))).case(replace(setting, fenced=False, warm=False), seed)
            coverage = Coverage()
            found = exact_law(case, 40_000, coverage)
            expected = [text_masses(case, conditioned=True)] if not setting.sampling.greedy else []
            # What steering and a nucleus make of a law depends on whether they see what is forbidden.
            if setting.sampling.top_p is None and not make().steer:
                masked = replace(case, make_parts=partial(Parts, constrain=(fence,)))
                expected.append(plain_law(masked))
            cases += [_agree(f"{method}, drafts {widths}", setting.name, found, law, coverage) for law in expected]
    return LawReport("lazily_constrained", method, TOLERANCE, cases)


def properly_weighted(
    method: str, options: Mapping[str, Any] | None = None, *, tokens: int = 3, seed: int = 1, most: int = 60_000
) -> LawReport:
    """The weights of the method's rows are unbiased: the mean weight of the rows that spell a text is the text's probability
    without the constraint, and 0 for what the constraint forbids; so the mean weight is the mass that is allowed.

    All outcomes of all rows of a prompt are enumerated, for texts of `tokens` tokens of which some lead nowhere and some stop
    early, with penalties and with top-k. The constraint has no mask if the method (or one joined to it) draws without.
    options: its options; give few particles. Raises LawBroken, ValueError beyond `most` outcomes. Cost: seconds.
    """
    make, roles = parts_of(method, options)
    box = (lambda fence: fence) if make().draw is None else BlackBoxed
    cases = []
    for setting in (
        Setting("penalties", Sampling(0.8, repetition_penalty=1.3, frequency_penalty=0.3), row=1),
        Setting("top-k, stop", Sampling(1.2, top_k=2), row=2, vocabulary=4, stop_ids=(3,)),
    ):

        def boxed(setting: Setting = setting) -> Parts:
            return make().join(Parts(constrain=(box(DeadEnds(setting.vocabulary)),)))

        case = Bench(boxed, roles).case(replace(setting, fenced=False, tokens=tokens), seed)
        # One prompt: other prompts' rows are other runs of the same thing, and there are many outcomes.
        case = replace(case, request=replace(case.request, prompts=(PROMPTS[setting.row],)), row=0)
        coverage = Coverage()
        found = weighted_masses(case, most, coverage)
        cases.append(_agree(method, setting.name, found, text_masses(case, conditioned=False), coverage))
    return LawReport("properly_weighted", method, TOLERANCE, cases)


def _agree(
    subject: str, name: str, found: Mapping[Tokens, float], expected: Mapping[Tokens, float], coverage: Coverage
) -> CaseReport:
    distance = total_variation(found, expected)
    if not distance <= TOLERANCE:
        worst = max({*found, *expected}, key=lambda tokens: abs(found.get(tokens, 0.0) - expected.get(tokens, 0.0)))
        raise LawBroken(
            f"{subject}, {name}: {distance:.3g} from the definition (allowed {TOLERANCE:g}) over {coverage.outcomes} outcomes; "
            f"the tokens {worst} have mass {found.get(worst, 0.0):.6g} and should have {expected.get(worst, 0.0):.6g}"
        )
    return CaseReport(name, distance, coverage)


def _compare(subject: str, bench: Bench, seed: int, most: int) -> LawReport:
    cases = [*sampled(subject, bench, seed, most), *greedy_cases(subject, bench, seed)]
    return LawReport("lossless", subject, TOLERANCE, cases)


def follows_plain(method: str, options: Mapping[str, Any] | None = None, seeds: int = 12) -> bool:
    """True if the method, with the same keys of randomness, emits the very tokens that plain sampling emits (as
    sample-then-match does, and exact rejection does not). Seen on exact tables at temperature 1."""
    make, roles = parts_of(method, options)
    plain, _ = parts_of("plain", None)
    setting = Setting("keyed", Sampling(1.0), tokens=12, vocabulary=5, fenced=False)
    for seed in range(seeds):
        ours = Bench(make, roles).case(setting, seed).learn(Keyed(seed), {})
        if ours != Bench(plain).case(setting, seed).learn(Keyed(seed), {}):
            return False
    return True


def fills_canvas(method: str, options: Mapping[str, Any] | None = None, seeds: int = 4) -> LawReport:
    """The any-order method keeps the rules of a canvas: at least one slot a round is filled, none twice, and never with the
    mask; a batch of ragged prompts decodes as its rows alone; a row ends at its first stop once all before it is settled;
    greedy and at a temperature.

    Seen on any-order tables. Raises LawBroken; CapabilityError for a left-to-right method. Cost: under a second.
    """
    make, _ = parts_of(method, options, "any")
    return canvases.fills_canvas(method, make, seeds)


def equals_static(method: str, options: Mapping[str, Any] | None = None, seeds: int = 6) -> LawReport:
    """The any-order method emits token for token what the static schedule emits, in no more calls, and in fewer in all.

    At temperature 0 the schedule is an independent definition (the most probable tokens of a block, the surest slots first);
    at a temperature, and for other ranks, `llada` with the method's own options. Seen on any-order tables and on a small
    transformers model in float64, in ragged batches. Raises LawBroken; CapabilityError for a left-to-right method.
    """
    make, _ = parts_of(method, options, "any")
    chosen = {option: value for option, value in (options or {}).items() if option != "drafts"}
    static, _ = parts_of("llada", chosen, "any")
    return canvases.equals_static(method, make, static, chosen, seeds)
