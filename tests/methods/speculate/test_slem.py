"""SLEM: what is written, read and kept, the law by going through all outcomes, and the acceptance against a law by hand."""

from __future__ import annotations

import numpy as np
import pytest

from treewright.core.request import Request, Sampling
from treewright.core.roles import Parts
from treewright.methods.speculate import slem
from treewright.models.tables import Table
from treewright.testing.bench import Fence
from treewright.testing.enumerate import Case, exact_law, outcomes, total_variation
from treewright.testing.laws import plain_law

A, B, AB = range(3)
OWN = (b"b", b"ba", b"a")
PROMPTS = ((A,), (B, AB, A, B), (AB, AB))


def softmax(logits: np.ndarray) -> np.ndarray:
    weights = np.exp(logits - logits.max())
    return weights / weights.sum()


def read(text: bytes) -> list[int]:
    """The target's ids of a text over two letters, "ab" before "a"."""
    ids = []
    while text:
        token = AB if text.startswith(b"ab") else (A, B)[text[:1] == b"b"]
        ids.append(token)
        text = text[2 if token == AB else 1 :]
    return ids


def written_laws(draft: Table, prefix: list[int], tokens: int, temperature: float = 1.0) -> dict[tuple[int, ...], float]:
    """The probability of every sequence of own tokens that the draft writes."""
    laws = {(): 1.0}
    for _ in range(tokens):
        laws = {
            (*said, token): weight * chance
            for said, weight in laws.items()
            for token, chance in enumerate(softmax(draft.logits([*prefix, *said]) / temperature))
        }
    return laws


@pytest.mark.parametrize(("row", "fenced"), [(0, True), (1, False), (2, True)])
@pytest.mark.parametrize("tokens", [1, 2])
def test_the_law_is_the_targets_with_penalties_and_a_constraint(row, fenced, tokens, translated):
    request = Request(PROMPTS, max_new_tokens=3, sampling=Sampling(0.8, top_p=0.9, repetition_penalty=1.3))
    parts = lambda: slem.parts(slem.Config(tokens)).join(Parts(constrain=(Fence(3),) if fenced else ()))  # noqa: E731
    case = Case(request, translated("own"), parts, row)
    assert total_variation(exact_law(case, 60_000), plain_law(case)) < 1e-12


@pytest.mark.parametrize(("prompt", "own"), [((B,), [0]), ((B, B), [0, 0])])
@pytest.mark.parametrize("tokens", [1, 2, 3])
def test_the_first_draft_is_accepted_with_the_sum_of_p_psi(prompt, own, tokens, translated):
    """Behind "b" nothing joins, so what the target reads is what the written text says alone."""
    models = translated("own")
    case = Case(Request((prompt,), max_new_tokens=2, sampling=Sampling(1.0)), models, lambda: slem.parts(slem.Config(tokens)))
    accepted = sum(chance for _, chance, steps in outcomes(case) if steps[0].accepted)
    psi = np.zeros(3)
    for said, weight in written_laws(Table(3, 51), own, tokens).items():
        psi[read(b"".join(OWN[token] for token in said))[0]] += weight
    assert accepted == pytest.approx(float(softmax(models["target"].logits(prompt)) @ psi), abs=1e-12)


def test_claims_are_what_the_target_reads_in_what_was_written(translated, decode):
    """Greedy: the draft's argmaxes, their text, the target's longest tokens; committed ids never change."""
    models = translated("own")
    decoded = decode(models["target"], "slem", [(B,)], {"tokens": 4}, models["draft"], max_new_tokens=30)
    step, own = decoded.trace().steps[0], [0]
    for _ in range(4):
        own.append(int(Table(3, 51).logits(own).argmax()))
    assert list(step.token[1:]) == read(b"".join(OWN[token] for token in own[1:]))


def test_new_text_that_would_join_the_committed_token_is_read_alone(translated):
    """Behind a committed "a" the letter b would make "ab"; the committed id stays, and b is the draft."""
    translator = translated("own")["draft"].capabilities.translation
    assert translator.follow([A], b"b") == [B]
    assert translator.follow([A], b"bab") == [B, AB]
    assert translator.follow([B], b"ab") == [AB]
    assert translator.follow([], b"aab") == [A, AB]
    assert translator.follow([B], b"") == []


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_the_tokens_are_those_of_plain_decoding(temperature, translated, decode):
    """Also with nothing in common but the bytes: the draft's tokens are longer than all of the target's."""
    settings = dict(max_new_tokens=30, sampling=Sampling(temperature), seed=5)
    for draft in ((b"b", b"ba", b"a"), (b"aa", b"bb", b"bab")):
        models = translated("own", draft=draft)
        found = decode(models["target"], "slem", PROMPTS, {"tokens": 3}, models["draft"], **settings)
        assert found.tokens == decode(models["target"], "plain", PROMPTS, **settings).tokens
        assert found.accepted() > 5


def test_a_draft_of_the_targets_ids_is_not_read(decode, greedy_text):
    """A chain of tokens like any other; a draft that is the target is accepted whole."""
    table = Table(5, 1)
    decoded = decode(table, "slem", [(1,), (2, 3)], {"tokens": 3}, table, max_new_tokens=16)
    assert decoded.tokens == [greedy_text(table, prompt, 16) for prompt in [(1,), (2, 3)]]
    assert [len(step.emitted) for step in decoded.trace().steps] == [4] * 4
    calls = [call.model for call in decoded.trace().calls if call.kind == "score"]
    assert calls[:8] == ["draft", "draft", "draft", "target"] * 2


def test_a_batch_is_its_rows(translated, decode):
    models = translated("own")
    together = decode(models["target"], "slem", PROMPTS, {}, models["draft"], max_new_tokens=20)
    for row, prompt in enumerate(PROMPTS):
        alone = decode(models["target"], "slem", [prompt], {}, models["draft"], max_new_tokens=20)
        pairs = zip(alone.trace().steps, together.trace(row).steps, strict=True)
        assert all([t for t in one.token if t >= 0] == [t for t in other.token if t >= 0] for one, other in pairs)
